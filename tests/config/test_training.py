import math

import pytest

from fertool.config.option import values_of, with_values
from fertool.config.training import FineTuneConfig, TrainConfig
from fertool.errors import UsageError
from fertool.training import resolve_device


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("epochs", 0, "``epochs=0``: must be 1 or more"),
        ("batch_size", 1, "``batch_size=1``: must be 2 or more"),
        ("lr", 0, "``lr=0``: must be above 0"),
        ("lr", math.nan, "``lr=nan``: must be above 0"),
        ("momentum", 1, "``momentum=1``: must be 0 or more and below 1"),
        ("grad_accumulation", 0, "``grad_accumulation=0``: must be 1 or more"),
        ("sam_rho", -0.1, "``sam_rho=-0.1``: must be 0 or more"),
        ("sam_rho", math.inf, "``sam_rho=inf``: must be 0 or more"),
        ("plateau_factor", 1.0, "``plateau_factor=1.0``: must be above 0 and below 1"),
        ("plateau_patience", -1, "``plateau_patience=-1``: must be 0 or more"),
        ("freeze_epochs", 30, "``freeze_epochs=30``: must be 0 or more and below 30"),
        ("ema_decay", 1.0, "``ema_decay=1.0``: must be 0 or more and below 1"),
        ("weight_decay", -1, "``weight_decay=-1``: must be 0 or more"),
        ("max_grad_norm", -1, "``max_grad_norm=-1``: must be 0 or more"),
        ("final_lr_ratio", 2, "``final_lr_ratio=2``: must be 0 or more and at most 1"),
        ("patience", -1, "``patience=-1``: must be 0 or more"),
        ("warmup_epochs", 30, "``warmup_epochs=30``: must be 0 or more and below 30"),
    ],
)
def test_a_bad_value_is_an_error_that_names_the_option(field, value, message):
    with pytest.raises(UsageError) as error:
        TrainConfig(**{field: value})
    assert error.value.message == message
    assert error.value.hint


@pytest.mark.parametrize(
    ("field", "name"), [("optimizer", "adamx"), ("lr_schedule", "cosin"), ("precision", "fp61")]
)
def test_an_unknown_name_lists_the_choices_and_the_nearest(field, name):
    with pytest.raises(UsageError, match=f"'{name}'") as error:
        TrainConfig(**{field: name})
    assert "did you mean" in error.value.hint


def test_options_of_a_config_are_those_of_the_configs_in_it_too():
    config = with_values(TrainConfig(), {"epochs": 7, "mixup": 0.5, "nothing": 1})
    assert (config.epochs, config.augmentation.mixup) == (7, 0.5)
    values = values_of(config)
    assert (values["epochs"], values["mixup"]) == (7, 0.5)
    assert {"keep", "seed", "erasing_area", "augmentation"}.isdisjoint(values)


def test_a_bad_value_of_an_inner_config_is_refused_too():
    with pytest.raises(UsageError, match="``rotation=200``"):
        with_values(TrainConfig(), {"rotation": 200})


def test_fine_tuning_is_off_by_default_and_slower():
    assert (FineTuneConfig().epochs, FineTuneConfig().lr) == (0, TrainConfig().lr / 2)
    with pytest.raises(UsageError, match="``epochs=-1``"):
        FineTuneConfig(epochs=-1)


def test_devices_are_resolved_by_name():
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_an_error(name):
    with pytest.raises(UsageError, match=f"``device={name}``"):
        resolve_device(name)
