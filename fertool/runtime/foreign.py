"""What an ONNX file of another program does not say of itself: classes, size, preprocessing and which output counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.spec import LARGEST_SIDE, InputSpec

PixelRange = Literal["0..1", "0..255", "-1..1"]
LARGEST_BATCH_BYTES = 1 << 29
"""Of the float pixels of one batch: what a small file may ask for."""
UINT8, FLOAT = "tensor(uint8)", "tensor(float)"


@dataclass(frozen=True)
class ForeignModel:
    """What the user says about ONNX files without fertool's header; None stands for the default.

    A graph with float32 input gets `(pixel in pixel_range - mean) / std`, by default pixels of 0 to 1 as they are.
    `mean` and `std` have one value, or one per channel. `output` names the output that counts, by default the first.
    """

    classes: tuple[str, ...] | None = None
    input_size: int | None = None
    pixel_range: PixelRange | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        repeated = [name for name, count in Counter(self.classes or ()).items() if count > 1]
        if repeated:
            raise UsageError(
                f"--classes: '{repeated[0]}' twice", "name each output once: --classes a,b,…"
            )
        if self.classes is not None and not all(self.classes):
            raise UsageError(
                "--classes: an empty name", "name one class per output: --classes a,b,…"
            )
        if not all(map(isfinite, self.mean or ())):
            raise UsageError(
                f"--mean {_listed(self.mean)}: not finite", "for example --mean 0.485,0.456,0.406"
            )
        if not all(isfinite(value) and value > 0 for value in self.std or ()):
            raise UsageError(
                f"--std {_listed(self.std)}: must be above 0", "for example --std 0.229,0.224,0.225"
            )

    @property
    def told(self) -> bool:
        """Whether anything is said at all."""
        return self != ForeignModel()


@dataclass(frozen=True)
class Assumptions:
    """How a foreign graph is used: what is fed into it, and the output that is read of all that there are.

    A graph with uint8 input gets raw pixels; then `pixel_range` is 0..255, `mean` 0 and `std` 1.
    """

    pixel_range: PixelRange
    mean: tuple[float, ...]
    std: tuple[float, ...]
    output: str
    outputs: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """What a reader of the figures should know."""
        mean, std = _listed(self.mean), _listed(self.std)
        fed = f"gets pixels of {self.pixel_range}, less {mean}, divided by {std}"
        if len(self.outputs) == 1:
            return fed
        return f"{fed}; of its outputs {', '.join(self.outputs)} counts '{self.output}' (--output-name)"

    def feed(self, images: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the float32 input of uint8 images [N, C, S, S]."""
        pixels = images.astype(np.float32)
        if self.pixel_range != "0..255":
            pixels /= 255
        if self.pixel_range == "-1..1":
            pixels = 2 * pixels - 1
        if any(value != 0 for value in self.mean) or any(value != 1 for value in self.std):
            pixels = (pixels - _per_channel(self.mean)) / _per_channel(self.std)
        return pixels


def foreign_classes(path: Path, foreign: ForeignModel) -> tuple[str, ...]:
    """Return the classes of a graph without a header; raises UsageError when nobody named them."""
    if foreign.classes is None:
        raise UsageError(
            f"{path}: an ONNX file without fertool's header",
            "name its classes in the order of its outputs, and its size: --classes a,b,… --input-size N",
        )
    return foreign.classes


def foreign_input(path: Path, shape: Sequence[Any], foreign: ForeignModel) -> InputSpec:
    """Return the input of a graph without a header; mean 0 and deviation 1 stand for pixels that it takes as told."""
    if len(shape) != 4 or shape[1] not in (1, 3):
        wanted = "[batch, 1 or 3 channels, size, size]"
        raise FertoolError(
            f"{path}: the graph's input has shape {shape}, not {wanted}", "export it in that layout"
        )
    given = foreign.input_size
    fixed = {side for side in shape[2:] if isinstance(side, int)}
    if len(fixed) > 1:
        raise FertoolError(
            f"{path}: the graph takes images of {shape[2]} x {shape[3]}, which are not square",
            "export the network for square images",
        )
    if given is not None and not fixed <= {given}:
        raise UsageError(
            f"{path}: the graph takes images of {shape[2]} x {shape[3]}, not --input-size {given}",
            "give the graph's own size",
        )
    size = given if given is not None else next(iter(fixed), None)
    if size is None:
        raise UsageError(f"{path}: the graph leaves the image size open", "give it: --input-size N")
    if not 1 <= size <= LARGEST_SIDE:
        raise FertoolError(
            f"{path}: images of {size} x {size}, the largest are {LARGEST_SIDE} x {LARGEST_SIDE}",
            "export the network for smaller images",
        )
    channels = int(shape[1])
    return InputSpec(channels, size, mean=(0.0,) * channels, std=(1.0,) * channels)


def assumptions(
    path: Path, foreign: ForeignModel, pixel_type: str, channels: int, outputs: Sequence[str]
) -> Assumptions:
    """Return how a foreign graph is used; raises UsageError for what does not fit it."""
    output = foreign.output if foreign.output is not None else outputs[0]
    if output not in outputs:
        raise unknown_name(f"output of {path}", output, outputs)
    if pixel_type == UINT8:
        if (foreign.pixel_range, foreign.mean, foreign.std) != (None, None, None):
            raise UsageError(
                f"{path}: the graph takes uint8 pixels, which are given as they are",
                "leave --pixel-range, --mean and --std away: the preprocessing is inside the graph",
            )
        return Assumptions("0..255", (0.0,), (1.0,), output, tuple(outputs))
    mean = foreign.mean or (0.0,)
    std = foreign.std or (1.0,)
    for flag, values in (("--mean", mean), ("--std", std)):
        if len(values) not in (1, channels):
            raise UsageError(
                f"{flag} {_listed(values)}: {len(values)} values for {channels} channels of {path}",
                "give one value, or one per channel",
            )
    return Assumptions(foreign.pixel_range or "0..1", mean, std, output, tuple(outputs))


def _per_channel(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 1, 1)


def _listed(values: Sequence[float] | None) -> str:
    return ",".join(f"{value:g}" for value in values or ())
