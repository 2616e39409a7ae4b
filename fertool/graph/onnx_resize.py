"""Converters of ONNX's `Resize` and `Upsample`, whose many modes PyTorch names in other ways."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fertool.graph.onnx_builder import (
    Draft,
    OnnxCall,
    UnsupportedNodeError,
    converts,
    int_tuple,
)
from fertool.graph.operator_types import MAX_SIZE

_INTERPOLATION_MODES = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic"}
"""PyTorch's names of ONNX's modes."""
_PYTORCH_CUBIC = -0.75
"""The coefficient of PyTorch's bicubic interpolation, which it does not let choose."""


@converts("Resize", "Upsample")
def _convert_resize(call: OnnxCall) -> Draft:
    x = call.draft()
    _require_plain_resize(call, x)
    size = _resized_size(call, x.shape)
    mode = call.attributes.get("mode", "nearest")
    coordinates = call.attributes.get("coordinate_transformation_mode", "half_pixel")
    if _is_old_resize(call):
        # Before opset 11 there was one kind of coordinates, and no attribute for it.
        coordinates = "asymmetric"

    if mode == "nearest":
        nearest = _nearest_mode(call, x.shape[2:], size, coordinates)
        return call.add("interpolate", x, size=size, mode=nearest)
    if mode not in _INTERPOLATION_MODES or not _has_pytorch_weights(call, size, coordinates):
        raise UnsupportedNodeError(
            f"resizing of the mode '{mode}' with coordinates '{coordinates}'"
        )
    align_corners = coordinates == "align_corners"
    return call.add(
        "interpolate", x, size=size, mode=_INTERPOLATION_MODES[mode], align_corners=align_corners
    )


def _require_plain_resize(call: OnnxCall, x: Draft) -> None:
    """Raise UnsupportedNodeError for kinds of resizing that `interpolate` does not compute."""
    antialiased = call.attributes.get("antialias") or call.attributes.get("exclude_outside")
    if len(x.shape) != 4 or antialiased:
        raise UnsupportedNodeError("resizing of another kind than that of feature maps")
    if call.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedNodeError("resizing to an aspect ratio")


def _has_pytorch_weights(call: OnnxCall, size: tuple[int, int], coordinates: str) -> bool:
    """Whether PyTorch interpolates linearly or cubically with the weights of this node."""
    if call.attributes.get("cubic_coeff_a", _PYTORCH_CUBIC) != _PYTORCH_CUBIC:
        return False
    # `pytorch_half_pixel` differs from `half_pixel` for results of one row or column only.
    if coordinates == "pytorch_half_pixel":
        return min(size) > 1
    return coordinates in ("align_corners", "half_pixel")


def _is_old_resize(call: OnnxCall) -> bool:
    return call.node.op_type == "Upsample" or call.opset < 11


def _resized_size(call: OnnxCall, shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of a resized feature map."""
    # Since opset 11 the region of interest is the second input, and sizes are the fourth.
    if _is_old_resize(call):
        given_scales, given_sizes = call.optional_constant(1), None
    else:
        given_scales, given_sizes = call.optional_constant(2), call.optional_constant(3)

    scales = call.attributes.get("scales")
    if given_scales is not None:
        scales = given_scales.array.reshape(-1).tolist()
    axes = [axis % 4 for axis in call.attributes.get("axes", range(4))]

    if given_sizes is not None:
        sizes = int_tuple(given_sizes.array)
        _require_one_per_axis(sizes, axes)
        height, width = _height_and_width_of_sizes(dict(zip(axes, sizes, strict=True)), shape)
    elif scales:
        _require_one_per_axis(scales, axes)
        height, width = _height_and_width_of_scales(dict(zip(axes, scales, strict=True)), shape)
    else:
        raise UnsupportedNodeError("resizing without a size")

    # A few bytes of a file would otherwise make feature maps that fill the memory.
    sides = (height, width, *shape[2:])
    if min(sides) < 1 or max(sides) > MAX_SIZE:
        raise UnsupportedNodeError(f"resizing to {height} x {width} pixels")
    return height, width


def _require_one_per_axis(numbers: Sequence[float], axes: Sequence[int]) -> None:
    if len(numbers) != len(axes):
        raise UnsupportedNodeError(f"{len(numbers)} sizes or scales for {len(axes)} axes")


def _height_and_width_of_sizes(sizes: Mapping[int, int], shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width, given sizes by axis."""
    if sizes.get(1, shape[1]) != shape[1]:
        raise UnsupportedNodeError("resizing of channels")
    return sizes.get(2, shape[2]), sizes.get(3, shape[3])


def _height_and_width_of_scales(
    scales: Mapping[int, float], shape: Sequence[int]
) -> tuple[int, int]:
    """Return height and width, given scales by axis."""
    if scales.get(0, 1) != 1 or scales.get(1, 1) != 1:
        raise UnsupportedNodeError("resizing of channels or of the axis of the images")

    exact_height = shape[2] * scales.get(2, 1.0)
    exact_width = shape[3] * scales.get(3, 1.0)
    # Scales are float32, whose product can be just below the integer that was meant.
    height = math.floor(exact_height + 1e-4)
    width = math.floor(exact_width + 1e-4)
    # Other fractions would need a scale, and PyTorch computes its own from the two sizes.
    if abs(exact_height - height) > 1e-3 or abs(exact_width - width) > 1e-3:
        raise UnsupportedNodeError(f"resizing to {exact_height:g} x {exact_width:g} pixels")
    return height, width


def _nearest_mode(
    call: OnnxCall, before: Sequence[int], after: Sequence[int], coordinates: str
) -> str:
    """Return PyTorch's name for a nearest-neighbor mode of ONNX.

    The two name their rules in different ways, so that the indices for these sizes are compared.
    """
    rounding = call.attributes.get("nearest_mode", "round_prefer_floor")
    if _is_old_resize(call):
        rounding = "floor"

    wanted: list[NDArray[Any]] = []
    for old, new in zip(before, after, strict=True):
        wanted.append(_nearest_indices(old, new, coordinates, rounding))

    for mode in ("nearest", "nearest-exact"):
        taken: list[NDArray[Any]] = []
        for old, new in zip(before, after, strict=True):
            line = torch.arange(old, dtype=torch.float32)[None, None]
            resized = F.interpolate(line, new, mode=mode)[0, 0]
            taken.append(resized.numpy())
        if all(map(np.array_equal, wanted, taken)):
            return mode
    raise UnsupportedNodeError(
        f"resizing to the nearest pixel with '{coordinates}' and '{rounding}'"
    )


def _nearest_indices(old: int, new: int, coordinates: str, rounding: str) -> NDArray[Any]:
    """Return the indices in a line of length `old` that a resized line of length `new` takes.

    The formulas are those of ONNX's operator definition.
    """
    index = np.arange(new, dtype=np.float64)
    if coordinates == "align_corners":
        # A line of one pixel takes the first; any scale does, as the index is 0.
        source = index * ((old - 1) / max(new - 1, 1))
    elif coordinates == "asymmetric":
        source = index * (old / new)
    elif coordinates in ("half_pixel", "pytorch_half_pixel"):
        source = (index + 0.5) * (old / new) - 0.5
    else:
        raise UnsupportedNodeError(f"resizing with coordinates '{coordinates}'")

    rounded = {
        "floor": np.floor(source),
        "ceil": np.ceil(source),
        "round_prefer_floor": np.ceil(source - 0.5),
        "round_prefer_ceil": np.floor(source + 0.5),
    }[rounding]
    return np.clip(rounded, 0, old - 1)
