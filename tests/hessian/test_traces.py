"""Traces against the brute-force Hessians of KL divergence and cross-entropy, and what measuring leaves behind."""

import copy
import math
from collections.abc import Callable, Iterable
from typing import Any, get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fertool.errors import FertoolError, UsageError
from fertool.hessian import Method, Sensitivity, TraceConfig, estimate, traces


def small_net(activation: type[nn.Module], seed: int = 0) -> nn.Sequential:
    """Every kind of layer, few positions and many, activations in place right behind a convolution, BN with history."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        activation(inplace=True),
        nn.Conv2d(4, 4, 3, stride=2, padding=1, groups=4),
        activation(inplace=True),
        nn.Conv2d(4, 6, 1),
        nn.BatchNorm2d(6),
        activation(inplace=True),
        nn.Conv2d(6, 4, 3, padding=2, dilation=2, groups=2, padding_mode="reflect"),
        activation(inplace=True),
        nn.Conv2d(4, 3, (3, 1), padding="same"),
        nn.Flatten(),
        nn.Linear(27, 5),
        activation(),
        nn.Linear(5, 4),
    ).double()
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.BatchNorm2d):
                layer.running_mean.normal_()
                layer.running_var.uniform_(0.5, 2)
                layer.weight.uniform_(-2, 2)
                layer.bias.normal_()
        net[-1].weight *= 4
    return net.eval()


def images(count: int, seed: int = 1, size: int = 6) -> Tensor:
    return torch.randn(count, 2, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


LABELS = torch.tensor([0, 3, 1, 2]).repeat(16)


def measure(net: nn.Module, x: Tensor, labels: Tensor = LABELS, **options: Any) -> Sensitivity:
    return estimate(net, x, labels[: len(x)], TraceConfig(**options))


def loss_of(net: nn.Module, x: Tensor, hessian: str) -> Callable[[Tensor], Tensor]:
    """The mean over images of what the Hessian is of, as a function of the logits."""
    target = net(x).detach().log_softmax(-1)
    if hessian == "kl":
        return lambda logits: (target.exp() * (target - logits.log_softmax(-1))).sum() / len(x)
    return lambda logits: nn.functional.cross_entropy(logits, LABELS[: len(x)])


def brute_force_traces(net: nn.Module, x: Tensor, name: str, hessian: str = "kl") -> Tensor:
    """Channel sums of the diagonal of d^2 loss / d weight^2, by differentiating twice."""
    loss = loss_of(net, x, hessian)

    def of_weight(weight: Tensor) -> Tensor:
        return loss(torch.func.functional_call(net, {f"{name}.weight": weight}, x))

    weight = net.get_submodule(name).weight.detach()
    second = torch.autograd.functional.hessian(of_weight, weight).reshape(weight.numel(), weight.numel())
    return second.diagonal().reshape(len(weight), -1).sum(1)


def brute_force_activation_traces(net: nn.Module, x: Tensor, name: str, hessian: str = "kl") -> Tensor:
    """Channel sums of the diagonal of d^2 loss / d activation^2, mean over images, one image at a time."""
    layer, loss = net.get_submodule(name), loss_of(net, x, hessian)
    seen = []
    hook = layer.register_forward_hook(lambda _, args, output: seen.append(output.detach().clone()))
    logits = net(x).detach()
    hook.remove()
    traces = []
    for index, activation in enumerate(seen[0]):

        def of_activation(value: Tensor, index: int = index) -> Tensor:
            hook = layer.register_forward_hook(lambda _, args, output: value[None].clone())
            others = logits.clone()
            others[index] = net(x[index : index + 1])[0]
            hook.remove()
            return loss(others) * len(x)

        second = torch.autograd.functional.hessian(of_activation, activation)
        diagonal = second.reshape(activation.numel(), activation.numel()).diagonal().reshape(activation.shape)
        channels = diagonal.movedim(-1, 0) if isinstance(layer, nn.Linear) else diagonal
        traces.append(channels.reshape(len(channels), -1).sum(1))
    return torch.stack(traces).mean(0)


def brute_force(net: nn.Module, x: Tensor, names: Iterable[str], hessian: str = "kl") -> dict[str, np.ndarray]:
    return {
        "weight_trace": np.concatenate([brute_force_traces(net, x, name, hessian) for name in names]),
        "activation_trace": np.concatenate([brute_force_activation_traces(net, x, name, hessian) for name in names]),
    }


def values(found: Sensitivity, key: str = "weight_trace") -> np.ndarray:
    return np.concatenate([getattr(layer, key) for layer in found.layers])


NAMES = ["0", "3", "5", "8", "10", "12", "14"]
TRACES = ["weight_trace", "activation_trace"]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish])
def test_exact_equals_the_brute_force_hessian(activation):
    net, x = small_net(activation), images(3)
    found = measure(net, x)
    assert [layer.name for layer in found.layers] == NAMES
    assert (found.hessian, found.samples, found.probes) == ("kl", 3, 0)
    for key, expected in brute_force(net, x, NAMES).items():
        assert expected.max() > 1e-4
        np.testing.assert_allclose(values(found, key), expected, rtol=1e-8, atol=1e-10 * expected.max())
    for layer in found.layers:
        assert layer.weight_params == net.get_submodule(layer.name).weight[0].numel()


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish])
@pytest.mark.parametrize("method", ["hutchinson", "hutchinson-masked"])
def test_products_estimate_the_brute_force_hessian_of_the_cross_entropy(method, activation):
    net, x = small_net(activation), images(3)
    found = measure(net, x, method=method, probes=60, seed=1)
    assert (found.hessian, found.samples, found.probes) == ("cross-entropy", 3, 60)
    for key, expected in brute_force(net, x, NAMES, "cross-entropy").items():
        error, sem = values(found, key) - expected, values(found, f"{key}_sem")
        exact = np.abs(error) < 1e-9 * np.abs(expected).max()  # a diagonal block has no noise
        assert (exact | (np.abs(error) < 5 * sem)).all()
        assert np.mean(exact | (np.abs(error) < 2 * sem)) > 0.8
        assert np.abs(error / expected.max()).max() > 1e-6  # estimates they are


def test_a_masked_product_is_less_noisy_and_exact_where_its_block_is_diagonal():
    net, x = small_net(nn.ReLU), images(3)
    one, masked = (measure(net, x, method=f"hutchinson{kind}", probes=30) for kind in ("", "-masked"))
    for key in TRACES:
        assert np.median(values(masked, f"{key}_sem")) < 0.5 * np.median(values(one, f"{key}_sem"))
    # The logits of a class are one number an image: z^2 H is H.
    expected = brute_force_activation_traces(net, x, "14", "cross-entropy")
    np.testing.assert_allclose(masked.layers[-1].activation_trace, expected, rtol=1e-9)
    assert max(masked.layers[-1].activation_trace_sem) < 1e-9


def test_batches_have_products_of_their_own_that_make_one_mean():
    net, x = small_net(nn.ReLU), images(4)
    found = measure(net, x, method="hutchinson-masked", probes=40, batch_size=2)
    for key, expected in brute_force(net, x, NAMES, "cross-entropy").items():
        assert (np.abs(values(found, key) - expected) < 5 * values(found, f"{key}_sem") + 1e-9).all()


def test_hardsigmoid_has_second_derivatives_while_products_need_them():
    plain = small_net(nn.ReLU)
    torch.manual_seed(0)
    net = nn.Sequential(*(nn.Hardsigmoid() if isinstance(layer, nn.ReLU) else layer for layer in plain))
    x, twin = images(3), copy.deepcopy(net)
    for index, layer in enumerate(twin):
        if isinstance(layer, nn.Hardsigmoid):
            twin[index] = nn.Sequential(Affine(), nn.Hardtanh(0, 1))
    for method in ("hutchinson", "exact"):
        ours, theirs = (measure(each, x, method=method) for each in (net, twin))
        for key in TRACES:
            np.testing.assert_allclose(
                values(ours, key), values(theirs, key), rtol=1e-6, atol=1e-12
            )  # its kernel rounds 1 / 6
    with pytest.raises(RuntimeError, match="hardsigmoid_backward"):
        brute_force_traces(net, x, "0", "cross-entropy")


class Affine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 6 + 0.5


def test_other_layers_without_second_derivatives_are_refused_by_name():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.second(torch.ops.aten.hardsigmoid(self.first(x)))

    with pytest.raises(FertoolError, match="no second derivative") as caught:
        measure(Net(), torch.randn(4, 3), LABELS % 2, method="hutchinson")
    assert "--method exact" in caught.value.hint


def test_linear_layers_over_several_positions_equal_the_brute_force_hessian():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 5), nn.Linear(5, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.mix(x)).mean((1, 2)))

    torch.manual_seed(0)
    net, x = Tokens().double(), images(3)
    for key, expected in brute_force(net, x, ["mix", "head"]).items():
        np.testing.assert_allclose(values(measure(net, x), key), expected, rtol=1e-10)
    found = measure(net, x, method="hutchinson-masked", probes=60)
    for key, expected in brute_force(net, x, ["mix", "head"], "cross-entropy").items():
        assert (np.abs(values(found, key) - expected) < 5 * values(found, f"{key}_sem") + 1e-9).all()


@pytest.mark.parametrize("key", TRACES)
@pytest.mark.parametrize("probes", [2, 10])
def test_probe_errors_are_as_large_as_they_say(probes, key):
    net, x = small_net(nn.Hardswish), images(24)
    exact = values(measure(net, x), key)
    live = exact > 0
    assert live.mean() > 0.8
    runs = [measure(net, x, method="probe", probes=probes, seed=seed) for seed in range(60)]
    error = np.array([values(run, key) - exact for run in runs])[:, live]
    sem = np.array([values(run, f"{key}_sem") for run in runs])[:, live]
    # Unbiased: over 60 seeds the mean error of each channel stays within 4 of its own standard errors.
    assert np.abs(error.mean(0) / (error.std(0, ddof=1) / math.sqrt(60))).max() < 4
    # Honest: errors are as large as stated, and spread like a normal distribution's (0.68 within one, 0.997 in three).
    assert np.mean(np.square(error).mean(0) / np.square(sem).mean(0)) == pytest.approx(1, abs=0.3)
    assert np.mean(np.abs(error) < sem) == pytest.approx(0.68, abs=0.1)
    assert np.mean(np.abs(error) < 3 * sem) > 0.97


@pytest.mark.parametrize("method", ["probe", "hutchinson"])
def test_more_rounds_are_more_probes_and_the_error_falls_with_their_root(method):
    net, x = small_net(nn.Hardswish), images(8)
    one = measure(net, x, method=method, probes=8)
    found = measure(net, x, method=method, probes=8, target_error=1e-9, max_rounds=9)
    assert (found.samples, found.probes) == (8, 72)
    sem, sem_of_one = values(found, "weight_trace_sem"), values(one, "weight_trace_sem")
    ratio = sem[sem_of_one > 0] / sem_of_one[sem_of_one > 0]
    assert np.median(ratio) == pytest.approx(1 / 3, abs=0.06)


def test_it_stops_after_the_round_that_reaches_the_target():
    net, x = small_net(nn.Hardswish), images(40)
    errors = [measure(net, x[: 8 * rounds]).relative_error() for rounds in range(1, 6)]
    target = sorted(errors)[2] * (1 + 1e-9)
    first = next(index for index, error in enumerate(errors) if error <= target)
    found = measure(net, x, samples=8, target_error=target)
    assert found.samples == 8 * (first + 1)
    assert found.relative_error() == pytest.approx(errors[first], rel=1e-9)
    assert errors[first] <= target
    np.testing.assert_allclose(values(found), values(measure(net, x[: found.samples])), rtol=1e-10)


def test_it_stops_when_images_or_rounds_are_used_up():
    net, x = small_net(nn.ReLU), images(20)
    assert measure(net, x, samples=8, target_error=1e-9).samples == 20
    assert measure(net, x, samples=8, target_error=1e-9, max_rounds=2).samples == 16
    assert measure(net, x, samples=8).samples == 8


@pytest.mark.parametrize("options", [
    {"samples": 8, "target_error": 1e-9},
    {"method": "probe", "samples": 5, "target_error": 1e-9, "max_rounds": 3},
    {"method": "hutchinson", "probes": 3, "target_error": 1e-9, "max_rounds": 2},
    {"method": "hutchinson-masked", "samples": 2, "probes": 2},
], ids=lambda options: options.get("method", "exact"))  # fmt: skip
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(options, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    monkeypatch.setattr(traces, "_SAVE_SECONDS", 0.0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(48, 4)).double()
    x, state = images(12), tmp_path / "x.json.resume"
    config = TraceConfig(**options, batch_size=4)
    seen: list[int] = []
    whole = estimate(net, x, LABELS[:12], config, on_progress=lambda done, total: seen.append(done))
    for stop in (seen[0], seen[len(seen) // 2], seen[-1]):

        def kill(done: int, total: int, stop: int = stop) -> None:
            if done == stop:
                raise KilledError

        with pytest.raises(KilledError):
            estimate(net, x, LABELS[:12], config, resume=state, on_progress=kill)
        # The state is that of the pass before the one that reported last.
        again = Mock()
        resumed = estimate(net, x, LABELS[:12], config, resume=state, on_progress=again)
        assert resumed.to_json() == whole.to_json()
        assert [call.args[0] for call in again.call_args_list] == seen[seen.index(stop) :]
        state.unlink()


def test_the_state_of_another_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "_SAVE_SECONDS", 0.0)
    net, x, state = small_net(nn.ReLU), images(4), tmp_path / "x.json.resume"
    estimate(net, x, LABELS[:4], resume=state)
    for run in ((net, x + 1, TraceConfig()), (net, x, TraceConfig(seed=1)), (small_net(nn.ReLU, 1), x, TraceConfig())):
        with pytest.raises(FertoolError, match="of a run with other options, data or weights"):
            estimate(run[0], run[1], LABELS[:4], run[2], resume=state)


def test_the_error_of_exact_traces_is_that_of_a_mean_over_images():
    net, x = small_net(nn.ReLU), images(5)
    found = measure(net, x, batch_size=2)
    for key in TRACES:
        single = np.array([values(measure(net, x[[i, i]]), key) for i in range(5)])
        np.testing.assert_allclose(values(found, key), single.mean(0), rtol=1e-12)
        np.testing.assert_allclose(values(found, f"{key}_sem"), single.std(0, ddof=1) / math.sqrt(5), rtol=1e-8)


@pytest.mark.parametrize("method", ["exact", "probe"])
def test_batches_do_not_change_the_result_but_the_seed_changes_probes(method):
    net, x = small_net(nn.ReLU), images(7)
    one = measure(net, x, method=method, seed=3)
    assert measure(net, x, method=method, seed=3) == one
    np.testing.assert_allclose(values(measure(net, x, method=method, seed=3, batch_size=3)), values(one), rtol=1e-10)
    other = measure(net, x, method=method, seed=4)
    assert (values(other) == values(one)).all() == (method == "exact")


def test_never_negative_for_a_network_that_is_sure():
    net = small_net(nn.Hardswish).float()
    with torch.no_grad():
        net[-1].weight *= 100
    for method in ("exact", "probe"):
        traces = values(measure(net, images(4).float(), method=method))
        assert traces.min() >= 0
        assert traces.max() > 0


def test_a_channel_that_reaches_nothing_has_trace_zero():
    net = small_net(nn.ReLU)
    with torch.no_grad():
        net[1].weight[2], net[1].bias[2] = 0, -1  # shut by the ReLU
    layer = measure(net, images(3)).layers[0]
    assert layer.weight_trace[2] == layer.weight_trace_sem[2] == 0
    assert min(layer.weight_trace[i] for i in (0, 1, 3)) > 0


def test_hardsigmoid_works_although_it_has_no_second_derivative():
    net = nn.Sequential(nn.Linear(4, 3), nn.Hardsigmoid(), nn.Linear(3, 2)).double()
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert values(measure(net, x, LABELS % 2)).min() > 0


def test_leaves_the_network_as_it_was():
    net = small_net(nn.ReLU).train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    before, x = copy.deepcopy(net), images(3)
    with torch.no_grad():
        for method in get_args(Method):
            measure(net, x, method=method, probes=2)
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert not x.requires_grad
    for (name, now), then in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then), name
        assert now.requires_grad == then.requires_grad
        assert (now.grad is None) == (name != "5.weight")
    assert torch.equal(net[5].weight.grad, torch.ones_like(net[5].weight))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before.buffers(), strict=True))
    assert not any(m._forward_hooks for m in net.modules())


def test_reports_progress_up_to_the_whole():
    seen = []
    estimate(
        *(small_net(nn.ReLU), images(5), LABELS[:5], TraceConfig(batch_size=2)),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (20, 20)  # 5 images, 4 classes
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "lanczos"}, "--method"),
        ({"method": "probe", "probes": 1}, "--probes"),
        ({"batch_size": 0}, "--b"),
        ({"max_rounds": 0}, "--max-rounds"),
        ({"target_error": 0.0}, "--target-error"),
        ({"target_error": math.nan}, "--target-error"),
    ],
)
def test_wrong_options_name_the_flag(options, named):
    with pytest.raises(UsageError, match=named):
        TraceConfig(**options)


def test_one_image_is_not_enough_for_an_error():
    with pytest.raises(UsageError, match="--samples 1"):
        measure(small_net(nn.ReLU), images(1))


def test_networks_without_a_formula_are_named():
    shared = nn.Linear(4, 4)
    with pytest.raises(FertoolError, match="layer 0 does not run once"):
        measure(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(2, 4))
    with pytest.raises(FertoolError, match="layer 0: no trace for Conv1d"):
        measure(nn.Sequential(nn.Conv1d(1, 1, 1)), torch.zeros(2, 1, 4))
    with pytest.raises(FertoolError, match="no float convolution"):
        measure(nn.ReLU(), torch.zeros(2, 4))


def test_traces_that_are_not_finite_name_the_layer():
    net = small_net(nn.ReLU)
    with torch.no_grad():
        net[12].weight[0, 0] = math.nan
    with pytest.raises(FertoolError, match="not finite"):
        measure(net, images(2))
