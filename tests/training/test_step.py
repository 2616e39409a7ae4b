from dataclasses import replace

import pytest
import torch
from torch import nn

from fertool.config.training import NO_AUGMENTATION
from fertool.data.pixels import to_input
from fertool.device import place
from fertool.losses import ClassificationLoss
from fertool.precision import grad_scaler, resolve_precision
from fertool.training import Supervised, TrainConfig, fit
from fertool.training.optimizer import make_optimizer
from fertool.training.step import Batch, Stepper

CPU = torch.device("cpu")


@pytest.fixture
def plain():
    """Make a network without batch norm and dropout: its gradients add up."""

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Conv2d(1, 4, 3, 2),
                nn.Tanh(),
                nn.AdaptiveAvgPool2d((3, 1)),
                nn.Flatten(),
                nn.Linear(12, 3),
            )

    return make


@pytest.fixture
def stepper():
    def make(module, dtype=torch.float32, objective=None, **options):
        plain_options = {"weight_decay": 0.0, "warmup_epochs": 0.0, **options}
        config = TrainConfig(optimizer="sgd", momentum=0, **plain_options)
        optimizer = make_optimizer(module, config)
        scaler = grad_scaler(dtype, CPU)
        return Stepper(
            module, module, optimizer, scaler, objective or Supervised(), config, CPU, dtype
        )

    return make


def batch(faces, shape, n=8):
    data = faces(n)
    return Batch(to_input(data.images, shape), data.targets(), 1.0)


@pytest.mark.parametrize("options", [{}, {"sam_rho": 0.1}, {"max_grad_norm": 0.01}], ids=str)
def test_accumulated_batches_are_one_large_batch(faces, plain, shape, options):
    data, runs = faces(70), []
    # 70 images: two steps of 32 and one of 6 in both, though 6 is a single batch in one of them.
    for batch_size, accumulate in ((32, 1), (8, 4), (16, 2)):
        module = plain()
        config = TrainConfig(
            *(3, batch_size, accumulate),
            weight_decay=0.0,
            warmup_epochs=0.0,
            lr=0.1,
            precision="fp32",
            optimizer="sgd",
            augmentation=NO_AUGMENTATION,
            **options,
        )
        losses = [record.train_loss for record in fit(module, data, data, shape, config).history]
        runs.append((module.state_dict(), losses))
    for state, losses in runs[1:]:
        assert losses == pytest.approx(runs[0][1], rel=1e-5)
        torch.testing.assert_close(state, runs[0][0], atol=1e-6, rtol=1e-4)


def test_a_last_step_of_batches_of_unlike_size_weighs_images_alike(faces, plain, shape):
    data, runs = faces(30), []
    for batch_size, accumulate in ((30, 1), (8, 4)):
        module = plain()
        config = TrainConfig(
            1,
            batch_size,
            accumulate,
            lr=0.1,
            precision="fp32",
            optimizer="sgd",
            augmentation=NO_AUGMENTATION,
        )
        fit(module, data, data, shape, config)
        runs.append(module.state_dict())
    torch.testing.assert_close(runs[0], runs[1], atol=1e-6, rtol=1e-4)


def test_progress_counts_steps_not_batches(faces, plain, shape, quick):
    seen = []
    config = quick(epochs=1, batch_size=4, grad_accumulation=3)
    fit(
        plain(),
        faces(26),
        faces(6, "val"),
        shape,
        config,
        on_batch=lambda *count: seen.append(count),
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_a_sharpness_aware_step_descends_from_where_it_started(faces, plain, shape, stepper):
    module, twin, data = plain(), plain(), batch(faces, shape)
    loss = stepper(module, lr=0.5, sam_rho=0.2).step([data])
    objective = Supervised()
    first = objective(twin, data.inputs, data.targets)
    gradients = torch.autograd.grad(first, list(twin.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    start = [p.detach().clone() for p in twin.parameters()]
    with torch.no_grad():
        for p, g in zip(twin.parameters(), gradients, strict=True):
            p += 0.2 * g / norm
    second = torch.autograd.grad(
        objective(twin, data.inputs, data.targets), list(twin.parameters())
    )
    for p, s, g in zip(module.parameters(), start, second, strict=True):
        torch.testing.assert_close(p.detach(), s - 0.5 * g)
    assert loss.item() == pytest.approx(first.item())


def test_a_sharpness_aware_step_records_statistics_once_and_drops_the_same_units_twice(
    faces, network, shape, stepper
):
    module, twin, data, masks = network().train(), network().train(), batch(faces, shape), []
    module[8].register_forward_hook(lambda layer, inputs, output: masks.append(output == 0))
    twin(data.inputs)
    stepper(module, sam_rho=0.1).step([data])
    assert len(masks) == 2
    assert torch.equal(*masks)
    for name, statistic in twin.named_buffers():
        torch.testing.assert_close(module.get_buffer(name), statistic)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_in_half_precision_the_network_computes_and_the_loss_and_the_weights_stay_float32(
    faces, network, shape, stepper, dtype
):
    module, data, seen = network().train(), batch(faces, shape), []

    class Watched(Supervised):
        def __call__(self, module, inputs, targets):
            logits = module(inputs)
            seen.extend([logits.dtype, self.loss(logits, targets).dtype])
            return self.loss(logits, targets)

    start = [p.detach().clone() for p in module.parameters()]
    stepper(module, dtype, Watched(ClassificationLoss(class_weights=(1.0, 2.0, 3.0))), lr=0.1).step(
        [data]
    )
    assert seen == [dtype, torch.float32]
    for p, before in zip(module.parameters(), start, strict=True):
        assert p.dtype == torch.float32
        assert p.isfinite().all()
        assert not torch.equal(p, before)


@pytest.mark.parametrize("options", [{"max_grad_norm": 1.0}, {"sam_rho": 0.05}, {}], ids=str)
def test_a_step_of_float16_whose_gradients_overflow_is_left_out(
    faces, plain, shape, stepper, options
):
    module, data = plain(), batch(faces, shape)
    start = [p.detach().clone() for p in module.parameters()]
    moving = stepper(module, torch.float16, lr=0.1, **options)
    moving.scaler.load_state_dict({**moving.scaler.state_dict(), "scale": 2.0**40})
    loss = moving.step([data])
    assert loss.isfinite()
    assert moving.scaler.get_scale() == 2.0**39
    assert all(map(torch.equal, module.parameters(), start))


@pytest.mark.parametrize("options", [{"max_grad_norm": 0.05}, {"sam_rho": 0.1}], ids=str)
def test_the_scale_of_float16_changes_neither_clipping_nor_the_ascent(
    faces, plain, shape, stepper, options
):
    data, states = batch(faces, shape), []
    for scale in (1.0, 1024.0):
        module = plain()
        moving = stepper(module, torch.float16, lr=0.1, **options)
        moving.scaler.load_state_dict({**moving.scaler.state_dict(), "scale": scale})
        moving.step([data])
        states.append(module.state_dict())
    torch.testing.assert_close(states[0], states[1], atol=1e-4, rtol=1e-3)


def test_runs_in_half_precision_learn(faces, network, quick, shape):
    for precision in ("bf16", "fp16"):
        val = faces(45, "val", seed=1)
        result = fit(network(), faces(150), val, shape, quick(precision=precision))
        assert result.evaluation.accuracy > 0.9


def test_auto_is_bf16_where_hardware_has_it_and_the_network_gains(monkeypatch):
    cuda, dense = torch.device("cuda"), nn.Sequential(nn.Conv2d(4, 4, 3))
    depthwise = nn.Sequential(dense, nn.Conv2d(4, 4, 3, groups=4))
    for supported, expected in ((True, torch.bfloat16), (False, torch.float32)):
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation, it=supported: it
        )
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda it=supported: {"avx512_bf16": it}, raising=False
        )
        for device in (cuda, CPU):
            assert resolve_precision("auto", device, dense) == expected
            assert resolve_precision("auto", device, depthwise) == torch.float32
        assert resolve_precision("fp16", cuda, depthwise) == torch.float16
        assert resolve_precision("bf16", CPU, depthwise) == torch.bfloat16
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert resolve_precision("auto", CPU, dense) == torch.float32


def test_channels_lie_last_on_the_cpu_alone():
    layer = torch.nn.Conv2d(4, 4, 3)
    assert place(layer, CPU).weight.is_contiguous(memory_format=torch.channels_last)
    assert place(layer, torch.device("meta")).weight.is_contiguous()


def test_weights_of_classes_reach_the_loss_of_a_run(faces, plain, shape, quick):
    data = faces(30)
    config = replace(quick(epochs=1), augmentation=NO_AUGMENTATION)
    runs = [
        fit(
            plain(),
            data,
            data,
            shape,
            config,
            objective=Supervised(ClassificationLoss(0.1, 2.0, weights)),
        )
        for weights in (None, (1.0, 1.0, 1.0), (1.0, 5.0, 1.0))
    ]
    losses = [run.history[0].train_loss for run in runs]
    assert losses[0] == pytest.approx(losses[1])
    assert losses[0] != pytest.approx(losses[2])


@pytest.mark.parametrize(
    "options", [{}, {"sam_rho": 0.1}, {"max_grad_norm": 0.01}, {"weight_decay": 0.1}], ids=str
)
def test_layers_of_the_objective_step_like_layers_of_the_network(
    faces, plain, adapted, shape, options
):
    data = faces(24)
    config = TrainConfig(
        *(2, 8),
        lr=0.1,
        optimizer="sgd",
        augmentation=NO_AUGMENTATION,
        patience=0,
        precision="fp32",
        **options,
    )
    beside, objective = plain(), adapted()
    # Validated without the layer, epochs may rank otherwise: only the last one is compared.
    ends = []
    fit(
        beside,
        data,
        data,
        shape,
        config,
        objective=objective,
        on_epoch=lambda _: ends.append(weights(beside)),
    )
    within = nn.Sequential(plain(), adapted().adapters)
    fit(within, data, data, shape, config, on_epoch=lambda _: ends.append(weights(within)))
    torch.testing.assert_close(ends[1], ends[3][:-1])
    torch.testing.assert_close(objective.adapters.weight, ends[3][-1])


def weights(module):
    return [parameter.detach().clone() for parameter in module.parameters()]
