"""Options of the network that a training starts from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fertool.config.image_options import LARGEST_SIDE, require_gray_or_color
from fertool.config.option import changed, check, option
from fertool.errors import UsageError

MODEL = "Model"


@dataclass(frozen=True)
class NetworkConfig:
    """Which network is trained; raises UsageError for a value out of bounds."""

    arch: str = option("resnet18", "A name of the zoo; a wrong one lists them all.", panel=MODEL)
    arch_args: Mapping[str, Any] = option(
        field(default_factory=dict),
        "Argument of the architecture; repeatable.",
        panel=MODEL,
        flag="arch-arg",
    )
    # The side of the images of FER2013.
    input_size: int = option(
        48, "Side of the input, pixels.", panel=MODEL, minimum=16, maximum=LARGEST_SIDE
    )
    input_channels: int = option(
        1, "1 for grayscale, 3 for color.", panel=MODEL, minimum=1, maximum=3
    )
    normalize: str | None = option(
        None,
        "Mean and deviation of pixels from 0 to 1: fer2013 (default: 129/255, 64/255), imagenet, "
        "or numbers MEAN/STD, one or one for each channel: 0.5/0.5, 0.5,0.4,0.4/0.2,0.2,0.2.",
        panel=MODEL,
        metavar="NAME|M,…/S,…",
        advanced=True,
    )
    init: Path | None = option(
        None,
        "Start from these weights: a state dict (.pth) of the reference implementation, or a .pt "
        "file.",
        panel=MODEL,
    )
    init_from: Path | None = option(
        None,
        "Train the network of this float model file, imported or pruned, from its weights, in "
        "place of ``arch``; a classifier for other classes starts afresh.",
        panel=MODEL,
        aliases=("student",),
        flag_aliases=("student",),
    )

    # None and not False, so that the provenance of models without it is what it was.
    measure_landmarks: bool | None = option(
        None,
        "Store in the header where the training images have the landmarks of faces, for predict "
        "to cut faces like them.",
        panel=MODEL,
        advanced=True,
    )

    def __post_init__(self) -> None:
        check(self)
        require_gray_or_color(self.input_channels)
        if self.normalize is not None:
            self._check_normalization(self.normalize)

    def _check_normalization(self, text: str) -> None:
        if self.init_from is not None:
            raise UsageError(
                f"``normalize={text}``: the header of ``init_from`` has the normalization",
                "leave ``normalize`` out",
            )
        mean, _ = parse_normalization(text)
        if len(mean) not in (1, self.input_channels):
            raise UsageError(
                f"``normalize={text}``: {len(mean)} channels, but ``input_channels`` is "
                f"{self.input_channels}",
                "add ``input_channels=3``, or give one value",
            )

    @property
    def files(self) -> list[Path]:
        """The files that the network starts from."""
        return [path for path in (self.init, self.init_from) if path is not None]

    @property
    def name(self) -> str:
        """The name of the network's file where none is given."""
        return self.init_from.stem if self.init_from else self.arch


_NORMALIZATIONS = {
    "fer2013": ((129 / 255,), (64 / 255,)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Means and deviations by name: of FER2013's pixels, rounded to whole gray levels, and those that
torchvision's networks were trained with."""


def parse_normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the means and deviations, one or one for each channel, that a text stands for.

    Raises UsageError for another text, and for numbers that do not fit pixels from 0 to 1.
    """
    if text in _NORMALIZATIONS:
        return _NORMALIZATIONS[text]
    means_text, _, deviations_text = text.partition("/")
    hint = f"give {', '.join(_NORMALIZATIONS)}, or numbers: ``normalize=0.5/0.5``"
    try:
        mean = tuple(float(number) for number in means_text.split(","))
        std = tuple(float(number) for number in deviations_text.split(","))
    except ValueError:
        raise UsageError(f"``normalize={text}``: not means and deviations", hint) from None
    if len(mean) != len(std) or len(mean) not in (1, 3):
        raise UsageError(f"``normalize={text}``: {len(mean)} means and {len(std)} deviations", hint)
    # Written so that NaN is refused as well.
    if not all(0 <= value <= 1 for value in mean) or not all(0.001 <= value <= 16 for value in std):
        raise UsageError(
            f"``normalize={text}``: of pixels from 0 to 1, means lie between 0 and 1 and "
            "deviations between 0.001 and 16",
            "divide by 255",
        )
    return mean, std


@dataclass(frozen=True)
class StudentConfig(NetworkConfig):
    """The same for a student: by default recipe 1's."""

    arch: str = changed(NetworkConfig, "arch", "micro_expnet")
