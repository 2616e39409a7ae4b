"""Options of importing a network as a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fertool.config.option import check, option
from fertool.errors import UsageError

_MAX_STATISTIC = 16.0
"""The largest mean and deviation of pixels from 0 to 1 that the header of a model file accepts."""


@dataclass(frozen=True)
class ImportConfig:
    """What a source does not tell; None stands for what the source has, or the default.

    `mean` and `std`, for pixels from 0 to 1, have one value or one for each channel. Raises
    UsageError for a value out of bounds.
    """

    weights: Path | None = option(
        None,
        "State dict for the network: .pth, .pt or .safetensors, plain or in the usual wrappings.",
    )
    classes: tuple[str, ...] | None = option(
        None, "Names of the outputs, in order: a,b,…", metavar="NAMES", separator=","
    )
    input_size: int | None = option(None, "Side of the images in pixels.", minimum=8, maximum=1024)
    input_channels: int | None = option(
        None, "1 (gray) or 3 (RGB); 1 sums the weights of an RGB stem.", minimum=1, maximum=3
    )
    mean: tuple[float, ...] | None = option(
        None,
        "Mean of pixels from 0 to 1: one value, or one per channel.",
        metavar="M,…",
        separator=",",
    )
    std: tuple[float, ...] | None = option(
        None,
        "Deviation of pixels from 0 to 1: one value, or one per channel.",
        metavar="S,…",
        separator=",",
    )
    arch_args: Mapping[str, Any] = option(
        field(default_factory=dict),
        "Argument of the zoo's network or of the factory.",
        flag="arch-arg",
    )

    def __post_init__(self) -> None:
        check(self)
        _check_classes(self.classes or ())
        if self.input_channels == 2:
            raise UsageError(
                "``input_channels=2``: images have 1 or 3 channels", "use 1 (gray) or 3 (RGB)"
            )
        _check_statistic("mean", self.mean)
        _check_statistic("std", self.std)
        if not all(value > 0 for value in self.std or ()):
            raise UsageError(
                f"``std={_comma_separated(self.std or ())}``: must be above 0",
                "for example ``std=0.229,0.224,0.225``",
            )

    @property
    def class_count(self) -> int | None:
        """The number of outputs, where classes are given."""
        return len(self.classes) if self.classes else None


def _check_classes(classes: tuple[str, ...]) -> None:
    for name, count in Counter(classes).items():
        if name and count == 1:
            continue
        what = f"'{name}' twice" if name else "an empty name"
        raise UsageError(f"``classes``: {what}", "name each output once: ``classes=a,b,…``")


def _check_statistic(name: str, values: tuple[float, ...] | None) -> None:
    if values is None:
        return
    # Written so that NaN is refused as well.
    if not all(-_MAX_STATISTIC <= value <= _MAX_STATISTIC for value in values):
        raise UsageError(
            f"``{name}``: of pixels from 0 to 1, {_comma_separated(values)} is not",
            "divide by 255",
        )
    if len(values) not in (1, 3):
        raise UsageError(f"``{name}``: {len(values)} values", "give one, or one for each channel")


def _comma_separated(values: tuple[float, ...]) -> str:
    return ",".join(str(value) for value in values)
