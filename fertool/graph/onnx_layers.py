"""The readers of ONNX operators that hold tensors: convolutions, matrix products with a weight, norms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fertool.graph.onnx_values import (
    Call,
    Constant,
    Draft,
    UnreadableNodeError,
    Value,
    front,
    reads,
    require_small,
)
from fertool.graph.onnx_windows import automatic_pads, both_sides, padded, per_axis

_STATISTICS = ("weight", "bias", "running_mean", "running_var")


@reads("Conv")
def _convolution(call: Call) -> Draft:
    x, weight, bias = call.flow(), call.constant(1), call.optional(2)
    axes = weight.array.ndim - 2
    if axes not in (1, 2) or len(x.shape) != axes + 2:
        raise UnreadableNodeError(f"a convolution over {axes} axes of a tensor with {len(x.shape)}")
    kernel = weight.array.shape[2:]
    stride, dilation = per_axis(call, "strides", axes), per_axis(call, "dilations", axes)
    pads = automatic_pads(call, x.shape[2:], kernel, stride, dilation)
    groups = call.attributes.get("group", 1)
    if weight.array.shape[1] * groups != x.shape[1]:
        raise UnreadableNodeError(
            f"its weight reads {weight.array.shape[1] * groups} channels of {x.shape[1]}"
        )
    padding = both_sides(pads)
    if padding is None:
        x, padding = padded(call, x, pads), (0,) * axes
    args = {"kernel_size": kernel, "stride": stride, "padding": padding, "dilation": dilation}
    return call.add_layer(
        f"conv{axes}d",
        x,
        {"weight": weight, "bias": bias},
        out_channels=weight.array.shape[0],
        groups=groups,
        bias=bias is not None,
        **(args if axes == 2 else {key: value[0] for key, value in args.items()}),
    )


@reads("ConvTranspose")
def _transposed_convolution(call: Call) -> Draft:
    x, weight, bias = call.flow(), call.constant(1), call.optional(2)
    if weight.array.ndim != 4 or len(x.shape) != 4:
        raise UnreadableNodeError("a transposed convolution that is not over two axes")
    kernel, groups = weight.array.shape[2:], call.attributes.get("group", 1)
    stride, dilation = per_axis(call, "strides", 2), per_axis(call, "dilations", 2)
    extra = per_axis(call, "output_padding", 2, 0)
    full = [
        s * (n - 1) + e + d * (k - 1) + 1
        for n, k, s, d, e in zip(x.shape[2:], kernel, stride, dilation, extra, strict=True)
    ]
    pads = _cropping(call, x.shape[2:], stride, full)
    padding = both_sides(pads)
    made = call.add_layer(
        "conv_transpose2d",
        x,
        {"weight": weight, "bias": bias},
        out_channels=weight.array.shape[1] * groups,
        kernel_size=kernel,
        stride=stride,
        padding=padding or (0, 0),
        dilation=dilation,
        output_padding=extra,
        groups=groups,
        bias=bias is not None,
    )
    return made if padding is not None else padded(call, made, [-width for width in pads])


def _cropping(
    call: Call, sizes: Sequence[int], stride: Sequence[int], full: Sequence[int]
) -> list[int]:
    """Return what a transposed convolution cuts off its full result, in ONNX's order."""
    wanted, automatic = (
        call.attributes.get("output_shape"),
        call.attributes.get("auto_pad", "NOTSET"),
    )
    if wanted is not None:
        wanted = wanted[-2:]
    elif automatic.startswith("SAME"):
        wanted = [size * step for size, step in zip(sizes, stride, strict=True)]
    else:
        return (
            [0, 0, 0, 0]
            if automatic == "VALID"
            else list(call.attributes.get("pads", (0, 0, 0, 0)))
        )
    total = [max(whole - size, 0) for whole, size in zip(full, wanted, strict=True)]
    less = [width // 2 for width in total]
    more = [width - width // 2 for width in total]
    return [*less, *more] if automatic == "SAME_UPPER" else [*more, *less]


@reads("Gemm")
def _matrix_product_and_sum(call: Call) -> Draft:
    weight, bias = call.constant(1), call.optional(2)
    if call.attributes.get("transA"):
        raise UnreadableNodeError("a product with a transposed input")
    matrix = weight.array if call.attributes.get("transB") else weight.array.T
    alpha, beta = call.attributes.get("alpha", 1.0), call.attributes.get("beta", 1.0)
    weight = replace(weight, array=matrix if alpha == 1 else matrix * np.float32(alpha))
    if bias is not None:
        terms = bias.array if beta == 1 else bias.array * np.float32(beta)
        if terms.ndim > 1 and terms.shape[:-1] != (1,) * (terms.ndim - 1):
            raise UnreadableNodeError("a sum with a matrix")
        bias = replace(bias, array=np.broadcast_to(terms.reshape(-1), matrix.shape[:1]))
    return _linear(call, call.flow(), weight, bias)


@reads("MatMul")
def _matrix_product(call: Call) -> Draft:
    weight = call.value(1)
    if isinstance(weight, Constant) and weight.array.ndim == 2:
        return _linear(call, call.flow(), replace(weight, array=weight.array.T), None)
    return call.add("matmul", call.flow(0), call.flow(1))


def _linear(call: Call, x: Draft, weight: Constant, bias: Constant | None) -> Draft:
    if weight.array.ndim != 2 or weight.array.shape[1] != x.shape[-1]:
        raise UnreadableNodeError(
            f"a product of {x.shape[-1]} features with a weight of {weight.array.shape}"
        )
    tensors = {"weight": weight, "bias": bias}
    return call.add_layer(
        "linear", x, tensors, out_features=weight.array.shape[0], bias=bias is not None
    )


@reads("BatchNormalization")
def _batch_norm(call: Call) -> Draft:
    x = call.flow()
    tensors = {key: call.constant(index + 1) for index, key in enumerate(_STATISTICS)}
    if len(x.shape) not in (2, 3, 4) or call.attributes.get("spatial", 1) != 1:
        raise UnreadableNodeError("a batch norm that is not over channels")
    # ONNX counts what remains of the old statistics, PyTorch what is taken from the new ones.
    momentum = round(1 - call.attributes.get("momentum", 0.9), 6)
    eps = call.attributes.get("epsilon", 1e-5)
    return call.add_layer("batch_norm", x, tensors, eps=eps, momentum=min(max(momentum, 0.0), 1.0))


@reads("InstanceNormalization")
def _instance_norm(call: Call) -> Draft:
    x, eps = call.flow(), call.attributes.get("epsilon", 1e-5)
    tensors: dict[str, Constant | None] = {"weight": call.constant(1), "bias": call.constant(2)}
    return call.add_layer("group_norm", x, tensors, num_groups=x.shape[1], eps=eps)


@reads("GroupNormalization")
def _group_norm(call: Call) -> Draft:
    x, groups = call.flow(), call.attributes["num_groups"]
    given = {"weight": call.constant(1), "bias": call.constant(2)}
    # Until opset 21 there was one factor for each group.
    require_small(x.shape[1])
    repeats = x.shape[1] // groups if call.opset < 21 else 1
    tensors = {
        key: replace(entry, array=np.repeat(entry.array, repeats)) for key, entry in given.items()
    }
    eps = call.attributes.get("epsilon", 1e-5)
    return call.add_layer("group_norm", x, tensors, num_groups=groups, eps=eps)


@reads("LayerNormalization")
def _layer_norm(call: Call) -> Draft:
    x, bias = call.flow(), call.optional(2)
    axes = len(x.shape) - front(call.attributes.get("axis", -1), len(x.shape))
    normalized = x.shape[-axes:]
    weight = _spread(call.constant(1), normalized)
    tensors = {"weight": weight, "bias": None if bias is None else _spread(bias, normalized)}
    eps = call.attributes.get("epsilon", 1e-5)
    return call.add_layer("layer_norm", x, tensors, axes=axes, eps=eps, bias=bias is not None)


def _spread(constant: Constant, shape: Sequence[int]) -> Constant:
    """Return a constant in the whole of a shape; raises UnreadableNodeError where it does not fit."""
    if math.prod(shape) != constant.array.size:
        require_small(math.prod(shape))
    try:
        return replace(constant, array=np.broadcast_to(constant.array, tuple(shape)))
    except ValueError:
        raise UnreadableNodeError(
            f"'{constant.name}' has the shape {constant.array.shape}, not {shape}"
        ) from None


@reads("PRelu")
def _prelu(call: Call) -> Value:
    x, slope = call.flow(), call.constant(1)
    if slope.array.size == 1:
        return call.add_layer(
            "prelu", x, {"weight": replace(slope, array=slope.array.reshape(1))}, shared=True
        )
    # Slopes are broadcast from the last axis on, as any tensor is.
    shape = (1,) * (len(x.shape) - slope.array.ndim) + slope.array.shape
    if len(shape) < 2 or shape[1] != x.shape[1] or math.prod(shape) != shape[1]:
        raise UnreadableNodeError(
            f"slopes of the shape {slope.array.shape}, not one for each channel"
        )
    return call.add_layer(
        "prelu", x, {"weight": replace(slope, array=slope.array.reshape(-1))}, shared=False
    )
