"""What is assumed about a model file of another program."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fertool.config.foreign_files import PixelRange
from fertool.results.fields import described
from fertool.strict_json import Finite, Text


@dataclass(frozen=True)
class Assumptions:
    """How a graph of another program is used: its preprocessing, and which output is read.

    A graph with uint8 input gets raw pixels; then `pixel_range` is 0..255, `mean` 0 and `std` 1.
    """

    pixel_range: Annotated[PixelRange, described("of the pixels that it gets")]
    mean: Annotated[tuple[Finite, ...], described("what is subtracted, one for each channel")]
    std: Annotated[tuple[Finite, ...], described("what the rest is divided by")]
    output: Annotated[Text, described("the output that is read as logits")]
    outputs: Annotated[tuple[Text, ...], described("all outputs of the graph")]

    @property
    def description(self) -> str:
        """A sentence for the reader of the figures."""
        mean = ",".join(f"{value:g}" for value in self.mean)
        std = ",".join(f"{value:g}" for value in self.std)
        preprocessing = f"gets pixels of {self.pixel_range}, less {mean}, divided by {std}"
        # Where there is one output, no choice was made that the reader could doubt.
        if len(self.outputs) == 1:
            return preprocessing
        outputs = ", ".join(self.outputs)
        return f"{preprocessing}; of its outputs {outputs} counts '{self.output}' (``output_name``)"
