"""The zoo by name: fertool's own architectures and those of installed packages."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from fertool.errors import UsageError, unknown_name
from fertool.registry import ARCHITECTURES
from fertool.strict_json import shown

SMALL_INPUT = 64
"""Inputs up to this many pixels get an architecture's `small_input` arguments by default."""

Architecture = Callable[..., nn.Module]
"""`(*, num_classes, in_channels, **arch_args) -> module`, from [N, in_channels, S, S] to logits."""

# The data decide these, not the user.
_NOT_ARGS = {"num_classes", "in_channels"}
_SMALL_INPUT_ARGS = "small_input_args"
_SWITCHES = {"true": True, "false": False}


def small_input(**arguments: Any) -> Callable[[Architecture], Architecture]:
    """Return the decorator that gives an architecture other defaults for small images.

    They count for images of at most 64 pixels, where a stride of 32 leaves a 2 x 2 map.
    """

    def add(function: Architecture) -> Architecture:
        setattr(function, _SMALL_INPUT_ARGS, arguments)
        return function

    return add


def architecture_names() -> list[str]:
    """Return the names of all architectures, those of installed packages included."""
    return ARCHITECTURES.names()


def get_architecture(name: str) -> Architecture:
    """Return an architecture by its name; raises UsageError with the choices."""
    architecture: Architecture = ARCHITECTURES.load(name)
    return architecture


def resolve_arch_args(name: str, given: Mapping[str, Any], input_size: int) -> dict[str, Any]:
    """Return all arguments of an architecture: defaults, those for small images, then `given`.

    Strings, which the command line gives, are converted to the type of the default. Raises
    UsageError for an unknown key or a value of another type.
    """
    resolved = {}
    for key, parameter in inspect.signature(get_architecture(name)).parameters.items():
        if key not in _NOT_ARGS:
            resolved[key] = parameter.default
    if input_size <= SMALL_INPUT:
        resolved.update(getattr(get_architecture(name), _SMALL_INPUT_ARGS, {}))
    # Last, so that they take precedence.
    for key, value in given.items():
        if key not in resolved:
            raise unknown_name(f"``arch_arg`` of {name}", key, resolved)
        resolved[key] = _convert(name, key, value, type(resolved[key]))
    return resolved


def check_arch_args(name: str, given: Mapping[str, Any]) -> None:
    """Raise ValueError naming the first argument whose type is not that of its default."""
    parameters = inspect.signature(get_architecture(name)).parameters
    for key, value in given.items():
        if key not in parameters:
            continue
        default = parameters[key].default
        if not isinstance(default, bool | int | float | str):
            continue
        allowed: tuple[type, ...] = (type(default),)
        if isinstance(default, float):
            allowed = (int, float)
        # Not isinstance: a bool is an int in Python, but not in torch.
        if type(value) not in allowed:
            raise ValueError(f"{key} is {shown(value)}, expected {type(default).__name__}")


def _convert(arch: str, key: str, value: Any, kind: type) -> Any:
    if isinstance(value, kind):
        return value
    try:
        if kind is bool:
            # bool("false") would be True.
            return _SWITCHES[str(value).lower()]
        return kind(value)
    except (ValueError, KeyError):
        raise UsageError(
            f"``arch_arg={key}={value}``: {arch} wants {kind.__name__}",
            f"for example {key}={kind(1)}".lower(),
        ) from None
