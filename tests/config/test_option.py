"""Options: bounds, choices, defaults of variants, and configs that are derived from others."""

from dataclasses import dataclass, fields
from typing import Literal

import pytest

from fertool.config.distillation import DistillationConfig
from fertool.config.option import about, advanced, changed, check, option
from fertool.config.pruning import ScheduleConfig
from fertool.config.training import FineTuneConfig, TrainConfig
from fertool.distillation.knowledge import KnowledgeDistillation
from fertool.errors import UsageError


@dataclass(frozen=True)
class Config:
    closed: float = option(1.0, "Help.", minimum=0, maximum=2)
    open: float = option(1.0, "Help.", above=0, below=2)
    kind: Literal["a", "b"] = option("a", "Help.")
    free: float = option(1.0, "Help.")

    def __post_init__(self):
        check(self)


@pytest.mark.parametrize("given", [{"closed": 0}, {"closed": 2}, {"open": 1e-9}, {"free": -1e9}])
def test_bounds_that_are_allowed_values(given):
    assert Config(**given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"closed": -0.1}, "``closed=-0.1``: must be 0 or more and at most 2"),
        ({"closed": 2.1}, "``closed=2.1``: must be 0 or more and at most 2"),
        ({"open": 0}, "``open=0``: must be above 0 and below 2"),
        ({"open": 2}, "``open=2``: must be above 0 and below 2"),
        ({"open": float("nan")}, "``open=nan``: must be"),
        ({"free": float("inf")}, "``free=inf``: must be a finite number"),
        ({"kind": "c"}, "unknown ``kind`` 'c'"),
    ],
)
def test_a_value_out_of_bounds_names_option_value_and_bounds(given, message):
    with pytest.raises(UsageError) as raised:
        Config(**given)
    assert message in raised.value.message


def test_a_derived_config_changes_what_it_says_and_nothing_else():
    @dataclass(frozen=True)
    class Derived(Config):
        closed: float = changed(Config, "closed", 3.0, maximum=4)
        open: float = advanced(Config, "open")

    assert Derived(closed=4).open == 1.0
    known = {field.name: about(field) for field in fields(Derived)}
    assert (known["closed"].minimum, known["closed"].help) == (0, "Help.")
    assert known["open"].advanced
    assert not known["closed"].advanced
    with pytest.raises(UsageError):
        Config(closed=4)


def test_fine_tuning_may_be_left_out_and_training_may_not():
    assert FineTuneConfig().epochs == 0
    with pytest.raises(UsageError, match="``epochs=0``"):
        TrainConfig(epochs=0)


def test_defaults_of_variants_in_help_texts_are_those_of_the_members():
    help_of_schedule = {field.name: about(field).help for field in fields(ScheduleConfig)}
    assert "Default: 10." in help_of_schedule["punish_epochs"]
    help_of_method = {field.name: about(field).help for field in fields(DistillationConfig)}
    assert "Default: 1." in help_of_method["beta"]
    assert "Default: 4." in help_of_method["match_depths"]
    assert "Default: 3." in help_of_method["rounds"]


def test_the_objective_of_distillation_has_the_defaults_of_the_options():
    defaults = KnowledgeDistillation.__init__.__kwdefaults__
    assert defaults["temperature"] == DistillationConfig().temperature == 4
    assert defaults["alpha"] == DistillationConfig().alpha == 0.7
