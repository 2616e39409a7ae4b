"""Options that describe ONNX files of other programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Literal

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
    time_limit: float = option(
        8,
        "Seconds that one image may take in any ONNX file; ends graphs with endless loops.",
        panel=FOREIGN,
        above=0,
        maximum=86_400,
    )

    def __post_init__(self) -> None:
        check(self)
        _require_distinct_names(self.classes or ())
        for value in self.mean or ():
            if not isfinite(value):
                raise UsageError(
                    f"``mean={_format_list(self.mean)}``: not finite",
                    "for example ``mean=0.485,0.456,0.406``",
                )
        for value in self.std or ():
            if not isfinite(value) or value <= 0:
                raise UsageError(
                    f"``std={_format_list(self.std)}``: must be above 0",
                    "for example ``std=0.229,0.224,0.225``",
                )

    @property
    def is_given(self) -> bool:
        """Whether the user has described the files at all."""
        return replace(self, time_limit=1) != ForeignModel(time_limit=1)


def _require_distinct_names(classes: Sequence[str]) -> None:
    seen: set[str] = set()
    for name in classes:
        if name in seen:
            raise UsageError(
                f"``classes``: '{name}' twice", "name each output once: ``classes=a,b,…``"
            )
        seen.add(name)
    if "" in seen:
        raise UsageError(
            "``classes``: an empty name", "name one class per output: ``classes=a,b,…``"
        )


def _format_list(values: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in values or ())
