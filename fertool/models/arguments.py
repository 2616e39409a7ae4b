"""Arguments that architectures of the zoo have in common, and the values they may have."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from fertool.errors import UsageError
from fertool.models.blocks import Factory


@dataclass(frozen=True)
class _Rule:
    """A condition on a value, what is wrong where it does not hold, and values that are right."""

    holds: Callable[[float], bool]
    problem: str
    hint: str


def _is_stride(value: float) -> bool:
    return value in (1, 2)


def _is_odd(value: float) -> bool:
    # "Same" padding needs a kernel with a center.
    return value > 0 and value % 2 == 1


def _is_probability_below_one(value: float) -> bool:
    # At 1 every value would be dropped, and dropout divides by 1 - p.
    return 0 <= value < 1


def _is_positive_and_finite(value: float) -> bool:
    return 0 < value < math.inf


def _is_at_least_one(value: float) -> bool:
    return value >= 1


_RULES = {
    "stem_stride": _Rule(_is_stride, "not a stride", "stem_stride=1 or stem_stride=2"),
    "early_stride": _Rule(_is_stride, "not a stride", "early_stride=1 or early_stride=2"),
    "stem_kernel": _Rule(_is_odd, "not an odd number", "stem_kernel=3 or 7"),
    "width_mult": _Rule(_is_positive_and_finite, "not above 0", "for example width_mult=0.5"),
    "dropout": _Rule(
        _is_probability_below_one, "not a probability below 1", "for example dropout=0.2"
    ),
    "stochastic_depth": _Rule(
        _is_probability_below_one, "not a probability below 1", "for example stochastic_depth=0.2"
    ),
    "subsets": _Rule(_is_at_least_one, "not above 0", "for example subsets=4"),
    "se_reduction": _Rule(_is_at_least_one, "not above 0", "se_reduction=4 or 6"),
}
_ACTIVATIONS: dict[str, Factory] = {
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
}


def check_args(**given: float) -> None:
    """Raise UsageError naming the first of these arguments whose value is out of range."""
    for name, value in given.items():
        rule = _RULES[name]
        if not rule.holds(value):
            raise UsageError(f"``arch_arg={name}={value}``: {rule.problem}", rule.hint)


def find_activation(name: str) -> Factory:
    """Return the class of an activation by its name; raises UsageError with the choices."""
    if name not in _ACTIVATIONS:
        choices = ", ".join(_ACTIVATIONS)
        raise UsageError(
            f"``arch_arg=activation={name}``: not the name of an activation", f"choices: {choices}"
        )
    return _ACTIVATIONS[name]
