"""The activation of a family as an argument of its architectures."""

from __future__ import annotations

from torch import nn

from fertool.errors import UsageError
from fertool.models.layers import Factory

_ACTIVATIONS: dict[str, Factory] = {
    "hardswish": nn.Hardswish,
    "silu": nn.SiLU,
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
}


def find_activation(name: str) -> Factory:
    """Return what makes the layers of that name; raises UsageError with the choices."""
    if name not in _ACTIVATIONS:
        choices = ", ".join(_ACTIVATIONS)
        raise UsageError(f"--arch-arg activation={name}: not the name of an activation", f"choices: {choices}")
    return _ACTIVATIONS[name]
