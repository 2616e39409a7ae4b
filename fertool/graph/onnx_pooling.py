"""Converters of ONNX operators that work on windows and positions: pooling, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fertool.graph.onnx_builder import (
    Constant,
    Draft,
    OnnxCall,
    UnsupportedNodeError,
    converts,
    finite_float,
    int_tuple,
    require_allocatable,
)

_VERY_LOW = -1e30
"""Padding below every input of a maximum; the operator table has no infinity."""
_MAX_RESIZED = 65_536
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
_RESIZE_MODES = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic"}
_PYTORCH_CUBIC = -0.75
"""The coefficient of PyTorch's bicubic interpolation, which it does not let choose."""


def ints_per_axis(call: OnnxCall, attribute: str, axes: int, default: int = 1) -> tuple[int, ...]:
    """Return an attribute with one integer for each axis of a window."""
    given = tuple(call.attributes.get(attribute) or (default,) * axes)
    if len(given) != axes:
        raise UnsupportedNodeError(f"`{attribute}` has {len(given)} numbers for {axes} axes")
    return given


def resolve_pads(
    call: OnnxCall,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return the padding of a window in ONNX's order: before each axis, then behind each."""
    mode = call.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * 2 * len(sizes)
    if mode == "NOTSET":
        return list(ints_per_axis(call, "pads", 2 * len(sizes), default=0))
    if 0 in stride:
        raise UnsupportedNodeError("a stride of 0")

    # SAME: as many windows as ceil(size / stride), the formula of ONNX's operator definition.
    total: list[int] = []
    for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True):
        windows = math.ceil(n / s)
        covered = (windows - 1) * s + d * (k - 1) + 1
        total.append(max(covered - n, 0))
    return split_padding(total, more_at_end=mode != "SAME_LOWER")


def split_padding(total: Sequence[int], *, more_at_end: bool) -> list[int]:
    """Split the padding of each axis over its two sides, in ONNX's order.

    Of an odd number of places one side gets one more.
    """
    less: list[int] = []
    more: list[int] = []
    for width in total:
        less.append(width // 2)
        more.append(width - width // 2)
    if more_at_end:
        return [*less, *more]
    return [*more, *less]


def symmetric_padding(pads: Sequence[int]) -> tuple[int, ...] | None:
    """Return the padding of each axis where it is the same on both sides, else None."""
    half = len(pads) // 2
    before, behind = list(pads[:half]), list(pads[half:])
    if before != behind or min(pads) < 0:
        return None
    return tuple(before)


def add_padding(
    call: OnnxCall, x: Draft, pads: Sequence[int], value: float = 0.0, mode: str = "constant"
) -> Draft:
    """Append a node that pads the last axes, given in ONNX's order."""
    half = len(pads) // 2
    widths: list[int] = []
    # PyTorch names the last axis first, both of its sides together.
    for axis in reversed(range(half)):
        widths += [pads[axis], pads[half + axis]]
    return call.add("pad", x, pad=widths, value=value, mode=mode)


@converts("MaxPool")
def _convert_max_pool(call: OnnxCall) -> Draft:
    x, kernel, stride, pads = _pooling_window(call)
    dilation = ints_per_axis(call, "dilations", 2)
    padding = symmetric_padding(pads)
    if padding is None or not _fits_half_kernel(padding, kernel):
        # 0 changes no maximum of numbers that are not negative, and keeps the sign known.
        fill = 0.0 if x.non_negative else _VERY_LOW
        x = add_padding(call, x, pads, fill)
        padding = (0, 0)
    return call.add(
        "max_pool2d",
        x,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=bool(call.attributes.get("ceil_mode", 0)),
    )


@converts("AveragePool")
def _convert_average_pool(call: OnnxCall) -> Draft:
    x, kernel, stride, pads = _pooling_window(call)
    if set(ints_per_axis(call, "dilations", 2)) != {1}:
        raise UnsupportedNodeError("an average over places that are not next to each other")

    padding = symmetric_padding(pads)
    include_padding = bool(call.attributes.get("count_include_pad", 0))
    ceil_mode = bool(call.attributes.get("ceil_mode", 0))
    if padding is not None and _fits_half_kernel(padding, kernel):
        return call.add(
            "avg_pool2d",
            x,
            # Without padding both ways to count are the same; this one is the default.
            count_include_pad=include_padding or not any(pads),
            kernel_size=kernel,
            stride=stride,
            padding=padding,
            ceil_mode=ceil_mode,
        )

    if ceil_mode:
        raise UnsupportedNodeError("an average with uneven padding and `ceil_mode`")
    padded = add_padding(call, x, pads)
    averages = call.add("avg_pool2d", padded, kernel_size=kernel, stride=stride)
    if include_padding:
        return averages
    correction = _padding_correction(call, x.shape[2:], pads, kernel, stride)
    return call.add("mul", averages, correction)


def _fits_half_kernel(padding: Sequence[int], kernel: Sequence[int]) -> bool:
    """Whether padding is at most half of the kernel, beyond which PyTorch's pooling refuses it."""
    return all(2 * width <= size for width, size in zip(padding, kernel, strict=True))


def _padding_correction(
    call: OnnxCall,
    sizes: Sequence[int],
    pads: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
) -> Draft:
    """Return the factors that turn averages over padded windows into averages without padding."""
    require_allocatable(math.prod(sizes))
    top, left, bottom, right = pads
    ones = F.pad(torch.ones(1, 1, *sizes), (left, right, top, bottom))
    fraction = F.avg_pool2d(ones, tuple(kernel), tuple(stride))
    return call.add_tensor(Constant((1 / fraction).numpy()))


def _pooling_window(
    call: OnnxCall,
) -> tuple[Draft, tuple[int, ...], tuple[int, ...], list[int]]:
    """Return the input of a pooling, its kernel, its stride and its padding."""
    x = call.draft()
    if len(x.shape) != 4:
        raise UnsupportedNodeError(f"pooling over a tensor with {len(x.shape)} axes, not 4")
    if call.output_count() > 1:
        raise UnsupportedNodeError("a maximum with its index")

    kernel = ints_per_axis(call, "kernel_shape", 2)
    stride = ints_per_axis(call, "strides", 2)
    dilation = ints_per_axis(call, "dilations", 2)
    pads = resolve_pads(call, x.shape[2:], kernel, stride, dilation)
    return x, kernel, stride, pads


@converts("GlobalAveragePool", "GlobalMaxPool")
def _convert_global_pool(call: OnnxCall) -> Draft:
    x = call.draft()
    is_mean = call.node.op_type == "GlobalAveragePool"
    if len(x.shape) == 4:
        op = "adaptive_avg_pool2d" if is_mean else "adaptive_max_pool2d"
        return call.add(op, x, output_size=(1, 1))

    # PyTorch's pooling takes images only; a reduction takes any number of axes.
    op = "mean" if is_mean else "amax"
    axes = tuple(range(2, len(x.shape)))
    return call.add(op, x, dim=axes, keepdim=True)


@converts("Pad")
def _convert_pad(call: OnnxCall) -> Draft:
    x = call.draft()
    rank = len(x.shape)
    pads = _pads_of_all_axes(call, rank)
    padded_axes = [axis for axis in range(rank) if pads[axis] or pads[rank + axis]]
    if not padded_axes:
        return x

    mode = _PAD_MODES[call.attributes.get("mode", "constant")]
    first = padded_axes[0]
    if mode != "constant" and rank == 4:
        # PyTorch reflects images in both of their axes at once.
        first = min(first, 2)
    if x.is_batch_axis(first):
        raise UnsupportedNodeError("padding of the axis of the images")

    widths = [*pads[first:rank], *pads[rank + first :]]
    return add_padding(call, x, widths, _pad_value(call), mode)


def _pads_of_all_axes(call: OnnxCall, rank: int) -> list[int]:
    """Return the padding of all axes in ONNX's order, also where the node names only some."""
    pads = call.integers("pads", 1)
    named_axes = call.optional_constant(3)
    axes = list(range(rank))
    if named_axes is not None:
        axes = [axis % rank for axis in int_tuple(named_axes.array)]
    if pads is None or len(pads) != 2 * len(axes):
        raise UnsupportedNodeError("padding that does not fit its axes")

    complete = [0] * 2 * rank
    for index, axis in enumerate(axes):
        complete[axis] = pads[index]
        complete[rank + axis] = pads[len(axes) + index]
    return complete


def _pad_value(call: OnnxCall) -> float:
    given = call.optional_constant(2)
    value = call.attributes.get("value", 0.0)
    if given is not None:
        value = given.number or 0.0
    finite = finite_float(value)
    if finite is None:
        # Infinity becomes the largest number of the operator table with the same sign.
        return math.copysign(-_VERY_LOW, value)
    return finite


# Many branches: each refuses one kind of resizing that PyTorch's `interpolate` does not compute.
@converts("Resize", "Upsample")
def _convert_resize(call: OnnxCall) -> Draft:
    x = call.draft()
    antialiased = call.attributes.get("antialias") or call.attributes.get("exclude_outside")
    if len(x.shape) != 4 or antialiased:
        raise UnsupportedNodeError("resizing of another kind than that of feature maps")
    if call.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnsupportedNodeError("resizing to an aspect ratio")

    size = _resized(call, x.shape)
    mode = call.attributes.get("mode", "nearest")
    coordinates = call.attributes.get("coordinate_transformation_mode", "half_pixel")
    if _is_old_resize(call):
        # Before opset 11 there was one kind of coordinates, and no attribute for it.
        coordinates = "asymmetric"
    if mode == "nearest":
        nearest = _nearest_mode(call, x.shape[2:], size, coordinates)
        return call.add("interpolate", x, size=size, mode=nearest)

    align_corners = coordinates == "align_corners"
    # `pytorch_half_pixel` differs from `half_pixel` for results of one row or column only.
    is_half_pixel = coordinates == "half_pixel" or (
        coordinates == "pytorch_half_pixel" and min(size) > 1
    )
    is_pytorch_cubic = call.attributes.get("cubic_coeff_a", _PYTORCH_CUBIC) == _PYTORCH_CUBIC
    if mode not in _RESIZE_MODES or not (align_corners or is_half_pixel) or not is_pytorch_cubic:
        raise UnsupportedNodeError(
            f"resizing of the mode '{mode}' with coordinates '{coordinates}'"
        )
    return call.add(
        "interpolate", x, size=size, mode=_RESIZE_MODES[mode], align_corners=align_corners
    )


def _is_old_resize(call: OnnxCall) -> bool:
    return call.node.op_type == "Upsample" or call.opset < 11


def _resized(call: OnnxCall, shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of a resized feature map."""
    is_old = _is_old_resize(call)
    # Since opset 11 the region of interest is the second input, and sizes are the fourth.
    given_scales = call.optional_constant(1 if is_old else 2)
    given_sizes = None if is_old else call.optional_constant(3)
    scales = call.attributes.get("scales")
    if given_scales is not None:
        scales = [float(scale) for scale in given_scales.array.reshape(-1)]
    axes = [axis % 4 for axis in call.attributes.get("axes", range(4))]

    if given_sizes is not None:
        sizes = int_tuple(given_sizes.array)
        _require_one_per_axis(sizes, axes)
        height, width = _size_of_sizes(dict(zip(axes, sizes, strict=True)), shape)
    elif scales:
        _require_one_per_axis(scales, axes)
        height, width = _size_of_scales(dict(zip(axes, scales, strict=True)), shape)
    else:
        raise UnsupportedNodeError("resizing without a size")

    # A few bytes of a file would otherwise make feature maps that fill the memory.
    if not all(1 <= size <= _MAX_RESIZED for size in (height, width, *shape[2:])):
        raise UnsupportedNodeError(f"resizing to {height} x {width} places")
    return height, width


def _require_one_per_axis(numbers: Sequence[float], axes: Sequence[int]) -> None:
    if len(numbers) != len(axes):
        raise UnsupportedNodeError(f"{len(numbers)} sizes or scales for {len(axes)} axes")


def _size_of_sizes(sizes: Mapping[int, int], shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width, given sizes by axis."""
    if sizes.get(1, shape[1]) != shape[1]:
        raise UnsupportedNodeError("resizing of channels")
    return sizes.get(2, shape[2]), sizes.get(3, shape[3])


def _size_of_scales(scales: Mapping[int, float], shape: Sequence[int]) -> tuple[int, int]:
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
        raise UnsupportedNodeError(f"resizing to {exact_height:g} x {exact_width:g} places")
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
        matches = True
        for old, new, indices in zip(before, after, wanted, strict=True):
            line = torch.arange(old, dtype=torch.float32)[None, None]
            resized = F.interpolate(line, new, mode=mode)[0, 0]
            matches = matches and np.array_equal(indices, resized.numpy())
        if matches:
            return mode
    raise UnsupportedNodeError(
        f"resizing to the nearest place with '{coordinates}' and '{rounding}'"
    )


def _nearest_indices(old: int, new: int, coordinates: str, rounding: str) -> NDArray[Any]:
    """Return the indices in a line of length `old` that a resized line of length `new` takes.

    The formulas are those of ONNX's operator definition.
    """
    index = np.arange(new, dtype=np.float64)
    if coordinates == "align_corners":
        # A line of one place takes the first; any scale does, as the index is 0.
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
