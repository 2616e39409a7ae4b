"""The arguments that architectures of the zoo have in common, and the values that they may have."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from fertool.errors import UsageError
from fertool.models.layers import Factory

# What must hold, what is said where it does not, and values that would do.
_RULES: dict[str, tuple[Callable[[float], bool], str, str]] = {
    "stem_stride": (
        lambda stride: stride in (1, 2),
        "not a stride",
        "stem_stride=1 or stem_stride=2",
    ),
    "early_stride": (
        lambda stride: stride in (1, 2),
        "not a stride",
        "early_stride=1 or early_stride=2",
    ),
    "stem_kernel": (
        lambda kernel: kernel > 0 and kernel % 2 == 1,
        "not an odd number",
        "stem_kernel=3 or 7",
    ),
    "width_mult": (
        lambda factor: 0 < factor < math.inf,
        "not above 0",
        "for example width_mult=0.5",
    ),
    "dropout": (lambda p: 0 <= p < 1, "not a probability below 1", "for example dropout=0.2"),
    "stochastic_depth": (
        lambda p: 0 <= p < 1,
        "not a probability below 1",
        "for example stochastic_depth=0.2",
    ),
    "subsets": (lambda count: count >= 1, "not above 0", "for example subsets=4"),
    "se_reduction": (lambda factor: factor >= 1, "not above 0", "se_reduction=4 or 6"),
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
        holds, problem, hint = _RULES[name]
        if not holds(value):
            raise UsageError(f"--arch-arg {name}={value}: {problem}", hint)


def find_activation(name: str) -> Factory:
    """Return what makes the layers of that name; raises UsageError with the choices."""
    if name not in _ACTIVATIONS:
        choices = ", ".join(_ACTIVATIONS)
        raise UsageError(
            f"--arch-arg activation={name}: not the name of an activation", f"choices: {choices}"
        )
    return _ACTIVATIONS[name]
