"""What the metadata of other programs' ONNX files lack: classes, size, preprocessing, output."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.config.foreign_files import ForeignModel
from fertool.config.image_options import LARGEST_SIDE, comma_separated
from fertool.errors import FertoolError, UsageError, unknown_name
from fertool.results import Assumptions
from fertool.spec import InputSpec

UINT8, FLOAT = "tensor(uint8)", "tensor(float)"


def preprocess(images: NDArray[np.uint8], assumptions: Assumptions) -> NDArray[np.float32]:
    """Return the float32 input of uint8 images [N, C, S, S]."""
    pixels = images.astype(np.float32)
    if assumptions.pixel_range != "0..255":
        pixels /= 255
    if assumptions.pixel_range == "-1..1":
        pixels = 2 * pixels - 1
    # Skipped where it changes nothing: it is timed as a part of each pass.
    if set(assumptions.mean) != {0} or set(assumptions.std) != {1}:
        pixels = (pixels - _per_channel(assumptions.mean)) / _per_channel(assumptions.std)
    return pixels


def foreign_classes(path: Path, foreign: ForeignModel) -> tuple[str, ...]:
    """Return the classes of a graph without a header; raises UsageError when none are given."""
    if foreign.classes is None:
        raise UsageError(
            f"{path}: an ONNX file without fertool's header",
            "name its classes in the order of its outputs, and its size: "
            "``classes=a,b,…`` ``input_size=N``",
        )
    return foreign.classes


def foreign_input(path: Path, shape: Sequence[Any], foreign: ForeignModel) -> InputSpec:
    """Return the input of a graph without a header, whose own input has this `shape`.

    Mean 0 and deviation 1 stand for pixels as the assumptions preprocess them. Raises FertoolError
    for graphs that take no square images, UsageError for a size that is missing or does not fit.
    """
    if len(shape) != 4 or shape[1] not in (1, 3):
        layout = "[batch, 1 or 3 channels, size, size]"
        raise FertoolError(
            f"{path}: the graph's input has shape {shape}, not {layout}", "export it in that layout"
        )
    size = _image_size(path, shape, foreign.input_size)
    # A file of a few bytes can ask for any size, and images are allocated in it.
    if not 1 <= size <= LARGEST_SIDE:
        raise FertoolError(
            f"{path}: images of {size} x {size}, the largest are {LARGEST_SIDE} x {LARGEST_SIDE}",
            "export the network for smaller images",
        )
    channels = int(shape[1])
    return InputSpec(channels, size, mean=(0.0,) * channels, std=(1.0,) * channels)


def _image_size(path: Path, shape: Sequence[Any], given: int | None) -> int:
    # A free dimension is a name or None in place of a number.
    fixed = {side for side in shape[2:] if isinstance(side, int)}
    sides = f"{shape[2]} x {shape[3]}"
    if len(fixed) > 1:
        raise FertoolError(
            f"{path}: the graph takes images of {sides}, which are not square",
            "export the network for square images",
        )
    if given is not None:
        if not fixed <= {given}:
            raise UsageError(
                f"{path}: the graph takes images of {sides}, not ``input_size={given}``",
                "give the graph's own size",
            )
        return given
    if not fixed:
        raise UsageError(
            f"{path}: the graph leaves the image size open", "give it: ``input_size=N``"
        )
    return fixed.pop()


def resolve_assumptions(
    path: Path, foreign: ForeignModel, pixel_type: str, channels: int, outputs: Sequence[str]
) -> Assumptions:
    """Return how a foreign graph is used; raises UsageError for options that do not fit it."""
    # Networks with auxiliary outputs have the main one first, as exporters write them.
    output = outputs[0] if foreign.output_name is None else foreign.output_name
    if output not in outputs:
        raise unknown_name(f"output of {path}", output, outputs)
    if pixel_type == UINT8:
        _require_no_preprocessing(path, foreign)
        return Assumptions("0..255", (0.0,), (1.0,), output, tuple(outputs))

    mean = foreign.mean or (0.0,)
    std = foreign.std or (1.0,)
    for name, values in (("mean", mean), ("std", std)):
        if len(values) not in (1, channels):
            raise UsageError(
                f"``{name}={comma_separated(values)}``: {len(values)} values "
                f"for {channels} channels of {path}",
                "give one value, or one per channel",
            )
    return Assumptions(foreign.pixel_range or "0..1", mean, std, output, tuple(outputs))


def _require_no_preprocessing(path: Path, foreign: ForeignModel) -> None:
    if (foreign.pixel_range, foreign.mean, foreign.std) != (None, None, None):
        raise UsageError(
            f"{path}: the graph takes uint8 pixels, which are given as they are",
            "leave out ``pixel_range``, ``mean`` and ``std``: "
            "the preprocessing is inside the graph",
        )


def _per_channel(values: Sequence[float]) -> NDArray[np.float32]:
    return np.array(values, np.float32).reshape(-1, 1, 1)
