"""Converters of ONNX operators on windows: pooling, and the padding that convolutions have too."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
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
_GLOBAL_POOLS = {
    "GlobalAveragePool": ("adaptive_avg_pool2d", "mean"),
    "GlobalMaxPool": ("adaptive_max_pool2d", "amax"),
}
"""The operator for images, and the reduction for other tensors, by ONNX operator."""
_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
"""PyTorch's names of ONNX's modes."""


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

    Of an odd number of pixels one side gets one more.
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
        raise UnsupportedNodeError("an average over pixels that are not next to each other")

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


@converts(*_GLOBAL_POOLS)
def _convert_global_pool(call: OnnxCall) -> Draft:
    x = call.draft()
    pool, reduction = _GLOBAL_POOLS[call.node.op_type]
    if len(x.shape) == 4:
        return call.add(pool, x, output_size=(1, 1))

    # PyTorch's pooling takes images only; a reduction takes any number of axes.
    axes = tuple(range(2, len(x.shape)))
    return call.add(reduction, x, dim=axes, keepdim=True)


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
