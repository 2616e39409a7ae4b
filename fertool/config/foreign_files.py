"""Options that describe ONNX files of other programs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

from fertool.config.image_options import (
    comma_separated,
    require_class_names,
    require_positive_std,
)
from fertool.config.option import check, option
from fertool.errors import UsageError

FOREIGN = "ONNX files of other programs"
PixelRange = Literal["0..1", "0..255", "-1..1"]


@dataclass(frozen=True)
class ForeignModel:
    """The user's description of ONNX files without fertool's header; None stands for the default.

    A graph with float32 input gets `(pixel in pixel_range - mean) / std`, by default pixels from 0
    to 1 as they are. `mean` and `std` have one value, or one per channel.

    Raises UsageError for class names that are empty or repeated, and for numbers out of bounds.
    """

    classes: tuple[str, ...] | None = option(
        None,
        "Classes of ONNX files of other programs, in output order: a,b,…",
        panel=FOREIGN,
        separator=",",
    )
    input_size: int | None = option(
        None, "Side of the input of such files, pixels.", panel=FOREIGN, minimum=8
    )
    pixel_range: PixelRange | None = option(
        None,
        "Range of the pixels that float32 inputs of such files take. Default: 0..1.",
        panel=FOREIGN,
    )
    mean: tuple[float, ...] | None = option(
        None,
        "Subtracted from pixels in that range, one value or one per channel: a,b,c. Default: 0.",
        panel=FOREIGN,
        separator=",",
    )
    std: tuple[float, ...] | None = option(
        None,
        "What they are divided by afterwards, one value or one per channel. Default: 1.",
        panel=FOREIGN,
        separator=",",
    )
    output_name: str | None = option(
        None,
        "The output of such files that has the logits. Default: the first.",
        panel=FOREIGN,
    )
    # A graph of a few bytes can loop for ever.
    time_limit: float = option(
        8,
        "Seconds that one image may take in any ONNX file; ends graphs with endless loops.",
        panel=FOREIGN,
        above=0,
        maximum=86_400,
    )

    def __post_init__(self) -> None:
        check(self)
        require_class_names(self.classes or ())
        mean = self.mean or ()
        # Without a bound: the pixels may lie between 0 and 255.
        if not all(isfinite(value) for value in mean):
            raise UsageError(
                f"``mean={comma_separated(mean)}``: not finite",
                "for example ``mean=0.485,0.456,0.406``",
            )
        require_positive_std(self.std or ())

    @property
    def is_given(self) -> bool:
        """Whether the user has described the files at all."""
        # A time limit describes no file: it holds for fertool's own ones too.
        return replace(self, time_limit=1) != ForeignModel(time_limit=1)
