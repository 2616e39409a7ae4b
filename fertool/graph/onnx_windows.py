"""The readers of ONNX operators that look at places through windows: pooling, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from fertool.graph.onnx_values import (
    Call,
    Constant,
    Draft,
    UnreadableNodeError,
    reads,
    real,
    require_small,
)

_VERY_LOW = -1e30
"""Below anything that a maximum is taken of."""
_LARGEST_RESIZED = 65_536


def per_axis(call: Call, attribute: str, axes: int, default: int = 1) -> tuple[int, ...]:
    """Return one whole number for each axis of a window."""
    given = tuple(call.attributes.get(attribute) or (default,) * axes)
    if len(given) != axes:
        raise UnreadableNodeError(f"`{attribute}` has {len(given)} numbers for {axes} axes")
    return given


def automatic_pads(
    call: Call,
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Return what is padded, in ONNX's order: before each axis, then behind each."""
    mode = call.attributes.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * 2 * len(sizes)
    if mode == "NOTSET":
        return list(per_axis(call, "pads", 2 * len(sizes), 0))
    if 0 in stride:
        raise UnreadableNodeError("a stride of 0")
    total = [
        max((math.ceil(n / s) - 1) * s + d * (k - 1) + 1 - n, 0)
        for n, k, s, d in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    less = [width // 2 for width in total]
    more = [width - width // 2 for width in total]
    return [*more, *less] if mode == "SAME_LOWER" else [*less, *more]


def both_sides(pads: Sequence[int]) -> tuple[int, ...] | None:
    """Return the padding of each axis where it is the same on both sides, else None."""
    half = len(pads) // 2
    return tuple(pads[:half]) if list(pads[:half]) == list(pads[half:]) and min(pads) >= 0 else None


def padded(
    call: Call, x: Draft, pads: Sequence[int], value: float = 0.0, mode: str = "constant"
) -> Draft:
    """Pad the last axes, given in ONNX's order."""
    half = len(pads) // 2
    # PyTorch names the last axis first, both of its sides together.
    widths = [width for axis in reversed(range(half)) for width in (pads[axis], pads[half + axis])]
    return call.add("pad", x, pad=widths, value=value, mode=mode)


@reads("MaxPool")
def _max_pool(call: Call) -> Draft:
    x, kernel, stride, pads = _window(call)
    dilation = per_axis(call, "dilations", 2)
    padding = both_sides(pads)
    if padding is None or any(
        2 * width > size for width, size in zip(padding, kernel, strict=True)
    ):
        x, padding = padded(call, x, pads, 0.0 if x.never_negative else _VERY_LOW), (0, 0)
    ceil_mode = bool(call.attributes.get("ceil_mode", 0))
    return call.add(
        "max_pool2d",
        x,
        kernel_size=kernel,
        stride=stride,
        padding=padding,
        dilation=dilation,
        ceil_mode=ceil_mode,
    )


@reads("AveragePool")
def _average_pool(call: Call) -> Draft:
    x, kernel, stride, pads = _window(call)
    if set(per_axis(call, "dilations", 2)) != {1}:
        raise UnreadableNodeError("an average over places that are not next to each other")
    padding, counts = both_sides(pads), bool(call.attributes.get("count_include_pad", 0))
    ceil_mode = bool(call.attributes.get("ceil_mode", 0))
    if padding is not None and all(
        2 * width <= size for width, size in zip(padding, kernel, strict=True)
    ):
        args = {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": ceil_mode}
        # Without padding both ways to count are one.
        return call.add("avg_pool2d", x, count_include_pad=counts or not any(pads), **args)
    if ceil_mode:
        raise UnreadableNodeError("an average with uneven padding and `ceil_mode`")
    sums = call.add("avg_pool2d", padded(call, x, pads), kernel_size=kernel, stride=stride)
    if counts:
        return sums
    return call.add("mul", sums, _corrected(call, x.shape[2:], pads, kernel, stride))


def _corrected(
    call: Call,
    sizes: Sequence[int],
    pads: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
) -> Draft:
    """Return the factors that make averages over padded places averages over the others."""
    require_small(math.prod(sizes))
    widths = (pads[1], pads[3], pads[0], pads[2])
    share = F.avg_pool2d(F.pad(torch.ones(1, 1, *sizes), widths), tuple(kernel), tuple(stride))
    return call.parameter(Constant((1 / share).numpy()))


def _window(call: Call) -> tuple[Draft, tuple[int, ...], tuple[int, ...], list[int]]:
    """Return what a pooling reads, its kernel, its stride and its padding."""
    x = call.flow()
    if len(x.shape) != 4:
        raise UnreadableNodeError(f"pooling over a tensor with {len(x.shape)} axes, not 4")
    if len([name for name in call.node.output if name]) > 1:
        raise UnreadableNodeError("a maximum with its place")
    kernel, stride = per_axis(call, "kernel_shape", 2), per_axis(call, "strides", 2)
    return (
        x,
        kernel,
        stride,
        automatic_pads(call, x.shape[2:], kernel, stride, per_axis(call, "dilations", 2)),
    )


@reads("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Draft:
    x, is_mean = call.flow(), call.node.op_type == "GlobalAveragePool"
    if len(x.shape) == 4:
        return call.add(
            "adaptive_avg_pool2d" if is_mean else "adaptive_max_pool2d", x, output_size=(1, 1)
        )
    axes = tuple(range(2, len(x.shape)))
    return call.add("mean" if is_mean else "amax", x, dim=axes, keepdim=True)


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}


@reads("Pad")
def _pad(call: Call) -> Draft:
    x, pads = call.flow(), call.integers("pads", 1)
    rank = len(x.shape)
    named = call.optional(3)
    axes = range(rank) if named is None else [int(axis) % rank for axis in named.array.reshape(-1)]
    if pads is None or len(pads) != 2 * len(axes):
        raise UnreadableNodeError("padding that does not fit its axes")
    widths = [0] * 2 * rank
    for place, axis in enumerate(axes):
        widths[axis], widths[rank + axis] = pads[place], pads[len(axes) + place]
    if not any(widths):
        return x
    first = next(axis for axis in range(rank) if widths[axis] or widths[rank + axis])
    mode = _PAD_MODES[call.attributes.get("mode", "constant")]
    # PyTorch reflects images in both of their axes at once.
    first = first if mode == "constant" or rank != 4 else min(first, 2)
    if x.has_images_along(first):
        raise UnreadableNodeError("padding of the axis of the images")
    given = call.optional(2)
    value = call.attributes.get("value", 0.0) if given is None else given.number or 0.0
    bounded = real(value)
    fill = math.copysign(-_VERY_LOW, value) if bounded is None else bounded
    return padded(call, x, [*widths[first:rank], *widths[rank + first :]], fill, mode)


@reads("Resize", "Upsample")
def _resize(call: Call) -> Draft:
    x = call.flow()
    if (
        len(x.shape) != 4
        or call.attributes.get("antialias")
        or call.attributes.get("exclude_outside")
    ):
        raise UnreadableNodeError("resizing of another kind than that of feature maps")
    if call.attributes.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnreadableNodeError("resizing to an aspect ratio")
    size = _resized(call, x.shape)
    kind = call.attributes.get("mode", "nearest")
    way = call.attributes.get("coordinate_transformation_mode", "half_pixel")
    if call.node.op_type == "Upsample" or call.opset < 11:
        way = "asymmetric"
    if kind == "nearest":
        return call.add("interpolate", x, size=size, mode=_nearest(call, x.shape[2:], size, way))
    aligned = way == "align_corners"
    is_known = aligned or way == "half_pixel" or (way == "pytorch_half_pixel" and min(size) > 1)
    modes = {"linear": "bilinear", "bilinear": "bilinear", "cubic": "bicubic"}
    if not is_known or kind not in modes or call.attributes.get("cubic_coeff_a", -0.75) != -0.75:
        raise UnreadableNodeError(f"resizing of the mode '{kind}' with coordinates '{way}'")
    return call.add("interpolate", x, size=size, mode=modes[kind], align_corners=aligned)


def _resized(call: Call, shape: Sequence[int]) -> tuple[int, int]:
    """Return height and width of a resized map."""
    is_old = call.node.op_type == "Upsample" or call.opset < 11
    scales = call.optional(1 if is_old else 2)
    given = (
        call.attributes.get("scales")
        if scales is None
        else list(map(float, scales.array.reshape(-1)))
    )
    sizes = None if is_old else call.optional(3)
    axes = [axis % 4 for axis in call.attributes.get("axes", range(4))]
    numbers = given if sizes is None else sizes.array.reshape(-1)
    if numbers is not None and len(numbers) != len(axes):
        raise UnreadableNodeError(f"{len(numbers)} sizes or scales for {len(axes)} axes")
    if sizes is not None:
        wanted = dict(zip(axes, (int(size) for size in sizes.array.reshape(-1)), strict=True))
        if wanted.get(1, shape[1]) != shape[1]:
            raise UnreadableNodeError("resizing of channels")
        found = [wanted.get(axis, shape[axis]) for axis in (2, 3)]
    elif given:
        factors = dict(zip(axes, given, strict=True))
        if any(factors.get(axis, 1) != 1 for axis in (0, 1)):
            raise UnreadableNodeError("resizing of channels or of the axis of the images")
        exact = [shape[axis] * factors.get(axis, 1.0) for axis in (2, 3)]
        found = [math.floor(size + 1e-4) for size in exact]
        if any(abs(size - whole) > 1e-3 for size, whole in zip(exact, found, strict=True)):
            raise UnreadableNodeError(f"resizing to {exact[0]:g} x {exact[1]:g} places")
    else:
        raise UnreadableNodeError("resizing without a size")
    if not all(1 <= size <= _LARGEST_RESIZED for size in (*found, *shape[2:])):
        raise UnreadableNodeError(f"resizing to {found[0]} x {found[1]} places")
    return found[0], found[1]


def _nearest(call: Call, before: Sequence[int], after: Sequence[int], way: str) -> str:
    """Return PyTorch's name for the way to take the nearest place, which two axes that are resized tell."""
    rule = call.attributes.get("nearest_mode", "round_prefer_floor")
    if call.node.op_type == "Upsample" or call.opset < 11:
        rule = "floor"
    places = [_places(old, new, way, rule) for old, new in zip(before, after, strict=True)]
    for mode in ("nearest", "nearest-exact"):
        lines = [torch.arange(old, dtype=torch.float32)[None, None] for old in before]
        found = [
            F.interpolate(line, new, mode=mode)[0, 0]
            for line, new in zip(lines, after, strict=True)
        ]
        if all(np.array_equal(a, b.numpy()) for a, b in zip(places, found, strict=True)):
            return mode
    raise UnreadableNodeError(f"resizing to the nearest place with '{way}' and '{rule}'")


def _places(old: int, new: int, way: str, rule: str) -> NDArray[Any]:
    """Return which places of a line of `old` those of one of `new` are nearest to, as ONNX defines it."""
    index = np.arange(new, dtype=np.float64)
    if way == "align_corners":
        source = index * ((old - 1) / (new - 1)) if new > 1 else index * 0
    elif way == "asymmetric":
        source = index * (old / new)
    elif way in ("half_pixel", "pytorch_half_pixel"):
        source = (index + 0.5) * (old / new) - 0.5
    else:
        raise UnreadableNodeError(f"resizing with coordinates '{way}'")
    rounded = {
        "floor": np.floor(source),
        "ceil": np.ceil(source),
        "round_prefer_floor": np.ceil(source - 0.5),
        "round_prefer_ceil": np.floor(source + 0.5),
    }[rule]
    return np.clip(rounded, 0, old - 1)
