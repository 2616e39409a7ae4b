"""Checks of options that describe a model's images and classes, shared by several commands."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from fertool.errors import UsageError

LARGEST_SIDE = 1024
"""Pixels of the side of an input."""
LARGEST_MEAN = 16.0
"""Magnitude of the mean of pixels from 0 to 1."""
Layout = Literal["nhwc", "nchw"]
"""The order of the axes of images: number, height, width, channels."""


def require_gray_or_color(channels: int | None, name: str = "input_channels") -> None:
    """Raise UsageError for images of two channels, which are within the bounds of the option."""
    if channels == 2:
        raise UsageError(
            f"``{name}=2``: images have 1 or 3 channels", "use 1 (grayscale) or 3 (color)"
        )


def require_class_names(classes: Sequence[str]) -> None:
    """Raise UsageError for a class without a name, and for a name that two classes have."""
    seen: set[str] = set()
    for name in classes:
        if not name:
            raise UsageError(
                "``classes``: an empty name", "name one class per output: ``classes=a,b,…``"
            )
        if name in seen:
            raise UsageError(
                f"``classes``: '{name}' twice", "name each output once: ``classes=a,b,…``"
            )
        seen.add(name)


def require_positive_std(std: Sequence[float]) -> None:
    """Raise UsageError for a standard deviation that pixels cannot be divided by."""
    # Written so that NaN is refused as well.
    if not all(0 < value < float("inf") for value in std):
        raise UsageError(
            f"``std={comma_separated(std)}``: must be above 0",
            "for example ``std=0.229,0.224,0.225``",
        )


def comma_separated(values: Sequence[float]) -> str:
    """Return numbers as they are given on the command line."""
    return ",".join(f"{value:g}" for value in values)
