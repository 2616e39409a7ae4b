"""Options of importing a network as a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fertool.config.image_options import (
    LARGEST_MEAN,
    LARGEST_SIDE,
    comma_separated,
    require_class_names,
    require_gray_or_color,
    require_positive_std,
)
from fertool.config.option import check, option
from fertool.errors import UsageError


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
    input_size: int | None = option(
        None, "Side of the images in pixels.", minimum=8, maximum=LARGEST_SIDE
    )
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
        "Argument of the network of the zoo or of a library, or of the factory; repeatable.",
        flag="arch-arg",
    )

    def __post_init__(self) -> None:
        check(self)
        require_class_names(self.classes or ())
        require_gray_or_color(self.input_channels)
        _require_statistic("mean", self.mean)
        _require_statistic("std", self.std)
        require_positive_std(self.std or ())

    @property
    def class_count(self) -> int | None:
        """The number of outputs, where classes are given."""
        return len(self.classes) if self.classes else None


def _require_statistic(name: str, values: tuple[float, ...] | None) -> None:
    """Raise UsageError for a mean or deviation that the header of a model file cannot have."""
    if values is None:
        return
    # The usual mistake is a statistic of pixels from 0 to 255. Written so that NaN is refused too.
    if not all(-LARGEST_MEAN <= value <= LARGEST_MEAN for value in values):
        raise UsageError(
            f"``{name}``: of pixels from 0 to 1, {comma_separated(values)} is not",
            "divide by 255",
        )
    if len(values) not in (1, 3):
        raise UsageError(f"``{name}``: {len(values)} values", "give one, or one for each channel")
