"""Converters of ONNX operators with tensors: convolutions, products with a weight, norms."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fertool.graph.onnx_builder import (
    Constant,
    Draft,
    OnnxCall,
    UnsupportedNodeError,
    Value,
    converts,
    normalize_axis,
    require_allocatable,
)
from fertool.graph.onnx_pooling import (
    add_padding,
    ints_per_axis,
    resolve_pads,
    split_padding,
    symmetric_padding,
)

_BATCH_NORM_TENSORS = ("weight", "bias", "running_mean", "running_var")
"""In the order of the inputs of ONNX's batch norm, which begin with x."""


@converts("Conv")
def _convert_conv(call: OnnxCall) -> Draft:
    x = call.draft()
    weight = call.constant(1)
    bias = call.optional_constant(2)
    axes = weight.array.ndim - 2
    if axes not in (1, 2) or len(x.shape) != axes + 2:
        raise UnsupportedNodeError(
            f"a convolution over {axes} axes of a tensor with {len(x.shape)}"
        )

    groups = call.attributes.get("group", 1)
    in_channels = weight.array.shape[1] * groups
    if in_channels != x.shape[1]:
        raise UnsupportedNodeError(f"its weight reads {in_channels} channels of {x.shape[1]}")

    kernel = weight.array.shape[2:]
    stride = ints_per_axis(call, "strides", axes)
    dilation = ints_per_axis(call, "dilations", axes)
    pads = resolve_pads(call, x.shape[2:], kernel, stride, dilation)
    padding = symmetric_padding(pads)
    if padding is None:
        # PyTorch's layer pads both sides alike, so that other padding takes a node of its own.
        x = add_padding(call, x, pads)
        padding = (0,) * axes

    window: dict[str, Any] = {
        "kernel_size": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
    }
    if axes == 1:
        window = {key: value[0] for key, value in window.items()}
    return call.add_layer(
        f"conv{axes}d",
        x,
        {"weight": weight, "bias": bias},
        out_channels=weight.array.shape[0],
        groups=groups,
        bias=bias is not None,
        **window,
    )


@converts("ConvTranspose")
def _convert_conv_transpose(call: OnnxCall) -> Draft:
    x = call.draft()
    weight = call.constant(1)
    bias = call.optional_constant(2)
    if weight.array.ndim != 4 or len(x.shape) != 4:
        raise UnsupportedNodeError("a transposed convolution that is not over two axes")

    kernel = weight.array.shape[2:]
    groups = call.attributes.get("group", 1)
    stride = ints_per_axis(call, "strides", 2)
    dilation = ints_per_axis(call, "dilations", 2)
    output_padding = ints_per_axis(call, "output_padding", 2, default=0)

    # Sizes before cropping, as the operator's definition in ONNX has them.
    full: list[int] = []
    for axis, size in enumerate(x.shape[2:]):
        reach = dilation[axis] * (kernel[axis] - 1) + 1
        full.append(stride[axis] * (size - 1) + output_padding[axis] + reach)

    pads = _cropping(call, x.shape[2:], stride, full)
    padding = symmetric_padding(pads)
    result = call.add_layer(
        "conv_transpose2d",
        x,
        {"weight": weight, "bias": bias},
        out_channels=weight.array.shape[1] * groups,
        kernel_size=kernel,
        stride=stride,
        padding=padding or (0, 0),
        dilation=dilation,
        output_padding=output_padding,
        groups=groups,
        bias=bias is not None,
    )
    if padding is not None:
        return result
    # Negative padding crops: PyTorch's layer crops both sides alike.
    crops = [-width for width in pads]
    return add_padding(call, result, crops)


def _cropping(
    call: OnnxCall, sizes: Sequence[int], stride: Sequence[int], full: Sequence[int]
) -> list[int]:
    """Return what a transposed convolution crops off its full result, in ONNX's order."""
    output_shape = call.attributes.get("output_shape")
    mode = call.attributes.get("auto_pad", "NOTSET")
    if output_shape is not None:
        wanted = output_shape[-2:]
    elif mode.startswith("SAME"):
        wanted = list(map(operator.mul, sizes, stride))
    elif mode == "VALID":
        return [0, 0, 0, 0]
    else:
        return list(call.attributes.get("pads", (0, 0, 0, 0)))

    total = [max(size - target, 0) for size, target in zip(full, wanted, strict=True)]
    return split_padding(total, more_at_end=mode == "SAME_UPPER")


@converts("Gemm")
def _convert_gemm(call: OnnxCall) -> Draft:
    """Convert alpha * x @ W + beta * b, whose factors become part of the weight and the bias."""
    weight = call.constant(1)
    bias = call.optional_constant(2)
    if call.attributes.get("transA"):
        raise UnsupportedNodeError("a product with a transposed input")

    matrix = weight.array.T
    if call.attributes.get("transB"):
        matrix = weight.array
    alpha = call.attributes.get("alpha", 1.0)
    # Without a factor the array stays a view of the file's, which takes no memory.
    scaled = matrix
    if alpha != 1:
        scaled = matrix * np.float32(alpha)
    weight = replace(weight, array=scaled)

    if bias is not None:
        terms = bias.array
        beta = call.attributes.get("beta", 1.0)
        if beta != 1:
            terms = terms * np.float32(beta)
        if terms.ndim > 1 and terms.shape[:-1] != (1,) * (terms.ndim - 1):
            raise UnsupportedNodeError("a sum with a matrix")
        bias = replace(bias, array=np.broadcast_to(terms.reshape(-1), matrix.shape[:1]))
    return _add_linear(call, call.draft(), weight, bias)


@converts("MatMul")
def _convert_matmul(call: OnnxCall) -> Draft:
    weight = call.value(1)
    if isinstance(weight, Constant) and weight.array.ndim == 2:
        transposed = replace(weight, array=weight.array.T)
        return _add_linear(call, call.draft(), transposed, None)
    return call.add("matmul", call.draft(0), call.draft(1))


def _add_linear(call: OnnxCall, x: Draft, weight: Constant, bias: Constant | None) -> Draft:
    if weight.array.ndim != 2 or weight.array.shape[1] != x.shape[-1]:
        raise UnsupportedNodeError(
            f"a product of {x.shape[-1]} features with a weight of {weight.array.shape}"
        )
    return call.add_layer(
        "linear",
        x,
        {"weight": weight, "bias": bias},
        out_features=weight.array.shape[0],
        bias=bias is not None,
    )


@converts("BatchNormalization")
def _convert_batch_norm(call: OnnxCall) -> Draft:
    x = call.draft()
    tensors: dict[str, Constant | None] = {}
    for index, key in enumerate(_BATCH_NORM_TENSORS, start=1):
        tensors[key] = call.constant(index)
    if len(x.shape) not in (2, 3, 4) or call.attributes.get("spatial", 1) != 1:
        raise UnsupportedNodeError("a batch norm that is not over channels")

    # ONNX's momentum weighs the old statistics, PyTorch's the new ones; rounded, since 1 - 0.9
    # is not 0.1.
    momentum = round(1 - call.attributes.get("momentum", 0.9), 6)
    momentum = min(max(momentum, 0.0), 1.0)
    return call.add_layer("batch_norm", x, tensors, eps=_epsilon(call), momentum=momentum)


@converts("InstanceNormalization")
def _convert_instance_norm(call: OnnxCall) -> Draft:
    """Convert an instance norm, which is a group norm with one channel in each group."""
    x = call.draft()
    tensors: dict[str, Constant | None] = {"weight": call.constant(1), "bias": call.constant(2)}
    return call.add_layer("group_norm", x, tensors, num_groups=x.shape[1], eps=_epsilon(call))


@converts("GroupNormalization")
def _convert_group_norm(call: OnnxCall) -> Draft:
    x = call.draft()
    groups = call.attributes["num_groups"]
    weight = call.constant(1)
    bias = call.constant(2)

    # Before opset 21 there was one factor for each group, and not for each channel.
    require_allocatable(x.shape[1])
    repeats = 1
    if call.opset < 21:
        repeats = x.shape[1] // groups
    tensors: dict[str, Constant | None] = {
        "weight": replace(weight, array=np.repeat(weight.array, repeats)),
        "bias": replace(bias, array=np.repeat(bias.array, repeats)),
    }
    return call.add_layer("group_norm", x, tensors, num_groups=groups, eps=_epsilon(call))


@converts("LayerNormalization")
def _convert_layer_norm(call: OnnxCall) -> Draft:
    x = call.draft()
    bias = call.optional_constant(2)
    rank = len(x.shape)
    axes = rank - normalize_axis(call.attributes.get("axis", -1), rank)
    normalized_shape = x.shape[-axes:]

    weight = _broadcast(call.constant(1), normalized_shape)
    if bias is not None:
        bias = _broadcast(bias, normalized_shape)
    return call.add_layer(
        "layer_norm",
        x,
        {"weight": weight, "bias": bias},
        axes=axes,
        eps=_epsilon(call),
        bias=bias is not None,
    )


def _epsilon(call: OnnxCall) -> float:
    return float(call.attributes.get("epsilon", 1e-5))


def _broadcast(constant: Constant, shape: Sequence[int]) -> Constant:
    """Return a constant broadcast to a shape; raises UnsupportedNodeError where it does not fit."""
    if math.prod(shape) != constant.array.size:
        require_allocatable(math.prod(shape))
    try:
        return replace(constant, array=np.broadcast_to(constant.array, tuple(shape)))
    except ValueError:
        raise UnsupportedNodeError(
            f"'{constant.name}' has the shape {constant.array.shape}, not {shape}"
        ) from None


@converts("PRelu")
def _convert_prelu(call: OnnxCall) -> Value:
    x = call.draft()
    slope = call.constant(1)
    flat = replace(slope, array=slope.array.reshape(-1))
    if slope.array.size == 1:
        return call.add_layer("prelu", x, {"weight": flat}, shared=True)

    # Slopes are broadcast from the last axis on, as any tensor is.
    shape = (1,) * (len(x.shape) - slope.array.ndim) + slope.array.shape
    if len(shape) < 2 or shape[1] != x.shape[1] or math.prod(shape) != shape[1]:
        raise UnsupportedNodeError(
            f"slopes of the shape {slope.array.shape}, not one for each channel"
        )
    return call.add_layer("prelu", x, {"weight": flat}, shared=False)
