"""Traces against the brute-force Hessian of the KL divergence, and what estimating them leaves behind."""

import copy
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from fertool.errors import FertoolError, UsageError
from fertool.hessian import LayerSensitivity, estimate


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


def brute_force_traces(net: nn.Module, x: Tensor, name: str) -> Tensor:
    """Channel sums of the diagonal of d^2 KL(float || net) / d weight^2, by differentiating twice."""
    target = net(x).detach().log_softmax(-1)

    def divergence(weight: Tensor) -> Tensor:
        logits = torch.func.functional_call(net, {f"{name}.weight": weight}, x)
        return (target.exp() * (target - logits.log_softmax(-1))).sum() / len(x)

    weight = net.get_submodule(name).weight.detach()
    hessian = torch.autograd.functional.hessian(divergence, weight).reshape(weight.numel(), weight.numel())
    return hessian.diagonal().reshape(len(weight), -1).sum(1)


def values(layers: tuple[LayerSensitivity, ...], key: str = "weight_trace") -> np.ndarray:
    return np.concatenate([getattr(layer, key) for layer in layers])


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Hardswish])
def test_exact_equals_the_brute_force_hessian(activation):
    net, x = small_net(activation), images(3)
    layers = estimate(net, x)
    assert [layer.name for layer in layers] == ["0", "3", "5", "8", "10", "12", "14"]
    for layer in layers:
        expected = brute_force_traces(net, x, layer.name)
        assert expected.abs().max() > 1e-4
        np.testing.assert_allclose(layer.weight_trace, expected, rtol=1e-10, atol=1e-10 * float(expected.max()))
        assert layer.weight_params == net.get_submodule(layer.name).weight[0].numel()


def test_linear_layers_over_several_positions_equal_the_brute_force_hessian():
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mix, self.head = nn.Linear(6, 5), nn.Linear(5, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(torch.tanh(self.mix(x)).mean((1, 2)))

    torch.manual_seed(0)
    net, x = Tokens().double(), images(3)
    for layer in estimate(net, x):
        np.testing.assert_allclose(layer.weight_trace, brute_force_traces(net, x, layer.name), rtol=1e-10)


@pytest.mark.parametrize("probes", [2, 10])
def test_probe_errors_are_as_large_as_they_say(probes):
    net, x = small_net(nn.Hardswish), images(24)
    exact = estimate(net, x)
    live = values(exact) > 0
    assert live.mean() > 0.8
    runs = [estimate(net, x, method="probe", probes=probes, seed=seed) for seed in range(60)]
    error = np.array([values(run) - values(exact) for run in runs])[:, live]
    sem = np.array([values(run, "weight_trace_sem") for run in runs])[:, live]
    # Unbiased: over 60 seeds the mean error of each channel stays within 4 of its own standard errors.
    assert np.abs(error.mean(0) / (error.std(0, ddof=1) / math.sqrt(60))).max() < 4
    # Honest: errors are as large as stated, and spread like a normal distribution's (0.68 within one, 0.997 in three).
    assert np.mean(np.square(error).mean(0) / np.square(sem).mean(0)) == pytest.approx(1, abs=0.2)
    assert np.mean(np.abs(error) < sem) == pytest.approx(0.68, abs=0.08)
    assert np.mean(np.abs(error) < 3 * sem) > 0.97


def test_the_error_of_exact_traces_is_that_of_a_mean_over_images():
    net, x = small_net(nn.ReLU), images(5)
    single = np.array([values(estimate(net, x[[i, i]])) for i in range(5)])
    layers = estimate(net, x, batch_size=2)
    np.testing.assert_allclose(values(layers), single.mean(0), rtol=1e-12)
    np.testing.assert_allclose(values(layers, "weight_trace_sem"), single.std(0, ddof=1) / math.sqrt(5), rtol=1e-8)


@pytest.mark.parametrize("method", ["exact", "probe"])
def test_batches_do_not_change_the_result_but_the_seed_changes_probes(method):
    net, x = small_net(nn.ReLU), images(7)
    one = estimate(net, x, method=method, seed=3)
    assert estimate(net, x, method=method, seed=3) == one
    np.testing.assert_allclose(values(estimate(net, x, method=method, seed=3, batch_size=3)), values(one), rtol=1e-10)
    other = estimate(net, x, method=method, seed=4)
    assert (values(other) == values(one)).all() == (method == "exact")


def test_never_negative_for_a_network_that_is_sure():
    net = small_net(nn.Hardswish).float()
    with torch.no_grad():
        net[-1].weight *= 100
    for method in ("exact", "probe"):
        traces = values(estimate(net, images(4).float(), method=method))
        assert traces.min() >= 0
        assert traces.max() > 0


def test_a_channel_that_reaches_nothing_has_trace_zero():
    net = small_net(nn.ReLU)
    with torch.no_grad():
        net[1].weight[2], net[1].bias[2] = 0, -1  # shut by the ReLU
    layer = estimate(net, images(3))[0]
    assert layer.weight_trace[2] == layer.weight_trace_sem[2] == 0
    assert min(layer.weight_trace[i] for i in (0, 1, 3)) > 0


def test_hardsigmoid_works_although_it_has_no_second_derivative():
    net = nn.Sequential(nn.Linear(4, 3), nn.Hardsigmoid(), nn.Linear(3, 2)).double()
    x = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert values(estimate(net, x)).min() > 0


def test_leaves_the_network_as_it_was():
    net = small_net(nn.ReLU).train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    before, x = copy.deepcopy(net), images(3)
    with torch.no_grad():
        estimate(net, x)
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
    estimate(small_net(nn.ReLU), images(5), batch_size=2, on_progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (20, 20)  # 5 images, 4 classes
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "hutchinson"}, "--method"),
        ({"method": "probe", "probes": 1}, "--probes"),
        ({"batch_size": 0}, "--b"),
    ],
)
def test_wrong_options_name_the_flag(options, named):
    with pytest.raises(UsageError, match=named):
        estimate(small_net(nn.ReLU), images(2), **options)


def test_one_image_is_not_enough_for_an_error():
    with pytest.raises(UsageError, match="--samples 1"):
        estimate(small_net(nn.ReLU), images(1))


def test_networks_without_a_formula_are_named():
    shared = nn.Linear(4, 4)
    with pytest.raises(FertoolError, match="layer 0 does not run once"):
        estimate(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(2, 4))
    with pytest.raises(FertoolError, match="layer 0: no trace for Conv1d"):
        estimate(nn.Sequential(nn.Conv1d(1, 1, 1)), torch.zeros(2, 1, 4))
    with pytest.raises(FertoolError, match="no float convolution"):
        estimate(nn.ReLU(), torch.zeros(2, 4))


def test_traces_that_are_not_finite_name_the_layer():
    net = small_net(nn.ReLU)
    with torch.no_grad():
        net[12].weight[0, 0] = math.nan
    with pytest.raises(FertoolError, match="not finite"):
        estimate(net, images(2))
