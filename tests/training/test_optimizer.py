import copy
import random

import pytest
import torch
from torch import nn

from fertool.training import TrainConfig
from fertool.training.optimizer import WeightAverage, lr_at, make_optimizer, plateau_ratio

EPOCHS, STEPS = 6, 7


def ours(**options):
    config = TrainConfig(**{"epochs": EPOCHS, "lr": 0.1, "warmup_epochs": 0, **options})
    return [lr_at(config, step, STEPS) for step in range(EPOCHS * STEPS)]


def torchs(make):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer)
    rates = []
    for _ in range(EPOCHS * STEPS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_cosine_is_torchs():
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR
    expected = torchs(lambda optimizer: schedule(optimizer, EPOCHS * STEPS - 1, eta_min=0.001))
    assert ours(final_lr_ratio=0.01)[:-1] == pytest.approx(expected[:-1])
    assert ours(final_lr_ratio=0.01)[-1] == pytest.approx(0.001)


def test_onecycle_is_torchs():
    def make(optimizer):
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=0.1,
            total_steps=EPOCHS * STEPS,
            cycle_momentum=False,
            final_div_factor=1 / (25 * 0.01),
        )

    # The optimiser is made with the peak; OneCycleLR sets the first rate when it is made.
    assert ours(lr_schedule="onecycle", final_lr_ratio=0.01) == pytest.approx(torchs(make))


@pytest.mark.parametrize("schedule", ["cosine", "constant", "onecycle"])
def test_warm_up_rises_to_the_peak_at_its_end(schedule):
    rates = ours(lr_schedule=schedule, warmup_epochs=2)
    assert rates[2 * STEPS] == pytest.approx(0.1) == max(rates)
    assert rates[: 2 * STEPS] == sorted(rates[: 2 * STEPS])
    assert 0 < rates[0] < 0.01


def test_a_constant_rate_is_constant():
    assert set(ours(lr_schedule="constant")) == {0.1}


@pytest.mark.parametrize(("factor", "patience"), [(0.1, 3), (0.5, 0), (0.5, 1), (0.3, 10)])
def test_plateau_is_torchs(factor, patience):
    draw = random.Random(0)
    # Falls, then wanders, by less than the threshold too.
    losses = [
        max(1.0, 2 - epoch / 10) + draw.choice([0, 0, 1e-5, -5e-5, -2e-4, 0.01])
        for epoch in range(60)
    ]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, factor=factor, patience=patience, eps=0
    )
    config = TrainConfig(
        epochs=60,
        lr=0.1,
        lr_schedule="plateau",
        warmup_epochs=0,
        plateau_factor=factor,
        plateau_patience=patience,
    )
    for epoch in range(60):
        expected = optimizer.param_groups[0]["lr"]
        assert lr_at(config, epoch * STEPS, STEPS, losses[:epoch]) == pytest.approx(
            expected, rel=1e-12
        )
        scheduler.step(losses[epoch])
    assert plateau_ratio(losses, factor, patience) < 1


def test_warm_up_leads_to_the_rate_of_the_plateau():
    rates = ours(lr_schedule="plateau", warmup_epochs=2)
    assert rates[: 2 * STEPS] == sorted(rates[: 2 * STEPS])
    assert rates[2 * STEPS :] == [0.1] * (EPOCHS - 2) * STEPS


@pytest.mark.parametrize(
    ("options", "nesterov"),
    [({}, True), ({"nesterov": False}, False), ({"momentum": 0}, False)],
    ids=str,
)
def test_momentum_is_nesterovs_unless_told_otherwise(options, nesterov):
    made = make_optimizer(nn.Linear(2, 2), TrainConfig(optimizer="sgd", **options))
    assert {group["nesterov"] for group in made.param_groups} == {nesterov}
    assert {group["momentum"] for group in made.param_groups} == {options.get("momentum", 0.9)}


def test_one_step_in_all_is_enough_for_every_schedule():
    for schedule in ("cosine", "constant", "onecycle", "plateau"):
        assert 0 < lr_at(TrainConfig(epochs=1, lr_schedule=schedule), 0, 1) <= 1e-3


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_biases_and_normalisation_are_not_decayed(optimizer):
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    made = make_optimizer(module, TrainConfig(optimizer=optimizer, weight_decay=0.1))
    decays = {id(p): group["weight_decay"] for group in made.param_groups for p in group["params"]}
    for name, parameter in module.named_parameters():
        assert decays[id(parameter)] == (0.1 if name in ("0.weight", "3.weight") else 0)


def test_the_running_mean_follows_weights_and_statistics():
    module = nn.BatchNorm1d(1)
    average = WeightAverage(module, 0.9)
    decays = [min(0.9, (1 + step) / (10 + step)) for step in range(200)]
    weight, mean = 1.0, 0.0
    for step, decay in enumerate(decays):
        with torch.no_grad():
            module.weight.fill_(step % 3)
            module.running_mean.fill_(step)
            module.num_batches_tracked.fill_(step)
        average.update(step)
        weight, mean = decay * weight + (1 - decay) * (step % 3), decay * mean + (1 - decay) * step
    assert average.module.weight.item() == pytest.approx(weight, rel=1e-5)
    assert average.module.running_mean.item() == pytest.approx(mean, rel=1e-5)
    assert average.module.num_batches_tracked.item() == 199
    assert not average.module.weight.requires_grad


def test_the_running_mean_leaves_the_module_alone():
    module = nn.Linear(2, 2)
    before = copy.deepcopy(module.state_dict())
    average = WeightAverage(module, 0.5)
    with torch.no_grad():
        average.module.weight.zero_()
    average.update(0)
    torch.testing.assert_close(module.state_dict(), before)
