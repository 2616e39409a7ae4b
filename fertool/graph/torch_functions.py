"""Converters of PyTorch calls that compute without tensors of their own, and all converters.

Operators whose arguments are PyTorch's own need no converter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Importing these modules registers their converters.
from fertool.graph import torch_layers as torch_layers
from fertool.graph import torch_shape_ops as torch_shape_ops
from fertool.graph.ir import clamp_operator
from fertool.graph.operators import OPERATORS
from fertool.graph.torch_calls import (
    REGISTERED,
    Converter,
    TorchCall,
    UnsupportedCallError,
    as_tuple,
    converts,
    int_per_axis,
)

_IGNORED = ("inplace", "_stacklevel", "dtype", "out", "generator", "training", "train")
"""Arguments without an effect on a deployed network."""
_ATEN_INTERPOLATE = {"upsample_bilinear2d": "bilinear", "upsample_bicubic2d": "bicubic"}
_ATEN_PAD = {"reflection_pad2d": "reflect", "replication_pad2d": "replicate"}
_ATEN_DROPOUT = {"native_dropout": "dropout", "feature_dropout": "dropout2d"}
_OPERATORS_BY_SPELLING: dict[str, str] = {}
for _op, _operator in OPERATORS.items():
    _OPERATORS_BY_SPELLING.update(dict.fromkeys(_operator.aliases, _op))


@converts(
    "contiguous",
    "clone",
    "detach",
    "to",
    "float",
    "type_as",
    "type",
    "alias",
    "alias_copy",
    "lift_fresh",
    "get data",
    "cpu",
    "cuda",
    "positive",
    "_to_copy",
)
def _convert_identity(call: TorchCall) -> str:
    given = call.bind("input")
    return call.recorder.source(given["input"])


@converts("dropout", "native_dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout")
def _convert_dropout(call: TorchCall) -> str:
    given = call.bind("input", p=0.5)
    op = _ATEN_DROPOUT.get(call.name, call.name)
    return call.add(op, given["input"], p=given["p"])


@converts("add", "sub", "mul", "div", "truediv", "divide", "multiply", "subtract", "true_divide")
def _convert_arithmetic(call: TorchCall) -> str:
    given = call.bind("input", "other", alpha=1)
    x, other, alpha = given["input"], given["other"], given["alpha"]
    op = _OPERATORS_BY_SPELLING.get(call.name, call.name)
    if given.get("rounding_mode") is not None:
        raise UnsupportedCallError(f"{call.name} that rounds")

    if alpha != 1:
        return _add_scaled(call, op, x, other, float(alpha))
    if not isinstance(other, Tensor):
        return call.add(op, x, other=float(other))
    if not isinstance(x, Tensor):
        return call.add(op, other, other=float(x))
    # A tensor without axes is a number, unless it is a parameter, which training changes.
    if other.dim() == 0 and call.recorder.tensor_name(other) is None:
        return call.add(op, x, other=float(other))
    return call.add(op, x, other)


def _add_scaled(call: TorchCall, op: str, x: Any, other: Any, alpha: float) -> str:
    """Append `x + alpha * other`, or the difference."""
    if not isinstance(other, Tensor):
        return call.add(op, x, other=alpha * other)
    scaled = call.add("mul", other, other=alpha)
    return call.recorder.add(op, [call.recorder.source(x), scaled], {})


@converts("reversed add", "reversed mul")
def _convert_commuted(call: TorchCall) -> str:
    call.name = call.name.removeprefix("reversed ")
    return _convert_arithmetic(call)


@converts("reversed sub", "rsub")
def _convert_reversed_sub(call: TorchCall) -> str:
    # The operator table has numbers as second operands only.
    given = call.bind("input", "other")
    negated = call.add("mul", given["input"], other=-1.0)
    return call.recorder.add("add", [negated], {"other": float(given["other"])})


@converts("reversed div", "reversed truediv", "reciprocal")
def _convert_reversed_div(call: TorchCall) -> str:
    given = call.bind("input", other=1.0)
    inverse = call.add("pow", given["input"], exponent=-1.0)
    return call.recorder.add("mul", [inverse], {"other": float(given["other"])})


@converts("hardtanh")
def _convert_hardtanh(call: TorchCall) -> str:
    given = call.bind("input", min_val=-1.0, max_val=1.0)
    return _add_clamp(call, given["input"], given["min_val"], given["max_val"])


@converts("clamp", "clip", "clamp_min")
def _convert_clamp(call: TorchCall) -> str:
    given = call.bind("input", min=None, max=None)
    return _add_clamp(call, given["input"], given["min"], given["max"])


@converts("clamp_max")
def _convert_clamp_max(call: TorchCall) -> str:
    given = call.bind("input", max=None)
    return _add_clamp(call, given["input"], None, given["max"])


def _add_clamp(call: TorchCall, x: Any, low: Any, high: Any) -> str:
    op, args = clamp_operator(_finite_float(low), _finite_float(high))
    return call.add(op, x, **args)


def _finite_float(value: Any) -> float | None:
    if value is None or math.isinf(value):
        return None
    return float(value)


@converts("max_pool2d", "max_pool2d_with_indices", "_max_pool2d")
def _convert_max_pool(call: TorchCall) -> str:
    given = call.bind("input", "kernel_size", stride=None, padding=0, dilation=1, ceil_mode=False)
    if given.get("return_indices"):
        raise UnsupportedCallError("a maximum with its index")
    return call.add(
        "max_pool2d",
        given["input"],
        **_pooling_window(given),
        dilation=int_per_axis(given["dilation"], 2),
        ceil_mode=given["ceil_mode"],
    )


@converts("avg_pool2d")
def _convert_average_pool(call: TorchCall) -> str:
    given = call.bind(
        "input",
        "kernel_size",
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    # ONNX and the integer kernels have no divisor but the size of the window.
    if given["divisor_override"] is not None:
        raise UnsupportedCallError("an average with another divisor")
    return call.add(
        "avg_pool2d",
        given["input"],
        **_pooling_window(given),
        ceil_mode=given["ceil_mode"],
        count_include_pad=given["count_include_pad"],
    )


def _pooling_window(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return kernel, stride and padding; without a stride windows lie side by side."""
    kernel = int_per_axis(given["kernel_size"], 2)
    stride = kernel
    if given["stride"]:
        stride = int_per_axis(given["stride"], 2)
    return {
        "kernel_size": kernel,
        "stride": stride,
        "padding": int_per_axis(given["padding"], 2),
    }


@converts("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _convert_adaptive_pool(call: TorchCall) -> str:
    given = call.bind("input", "output_size")
    # Of the result, since the argument may leave one of the sizes as it is.
    return call.add(call.name, given["input"], output_size=tuple(call.result.shape[2:]))


@converts(
    "interpolate",
    "upsample",
    "upsample_nearest",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
)
def _convert_interpolate(call: TorchCall) -> str:
    given = call.bind("input", size=None, scale_factor=None, mode="nearest", align_corners=None)
    mode = given["mode"]
    if call.name.endswith("2d"):
        mode = _ATEN_INTERPOLATE.get(call.name, "nearest")
        # ATen's third argument is `align_corners`, except for the nearest modes, which have none.
        if isinstance(given["scale_factor"], bool):
            given["align_corners"] = given["scale_factor"]
    if given.get("antialias"):
        raise UnsupportedCallError("interpolation with antialiasing")
    # The other modes have no corners to align; PyTorch refuses the argument there.
    align_corners = None
    if mode in ("bilinear", "bicubic"):
        align_corners = bool(given["align_corners"])
    return call.add(
        "interpolate",
        given["input"],
        size=tuple(call.result.shape[2:]),
        mode=mode,
        align_corners=align_corners,
    )


@converts("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def _convert_pad(call: TorchCall) -> str:
    if call.name == "constant_pad_nd":
        given = call.bind("input", "pad", value=0.0)
        mode = "constant"
    else:
        given = call.bind("input", "pad", mode="constant", value=0.0)
        mode = _ATEN_PAD.get(call.name, given["mode"])

    widths = tuple(int(width) for width in given["pad"])
    # Networks with computed "same" padding pad by nothing where the sizes fit already.
    if not any(widths):
        return _convert_identity(call)
    return call.add("pad", given["input"], pad=widths, mode=mode, value=float(given["value"] or 0))


@converts("mean", "sum", "amax")
def _convert_reduction(call: TorchCall) -> str:
    given = call.bind("input", dim=None, keepdim=False)
    x = given["input"]
    dims = given.get("axis", given["dim"])
    if dims is None:
        dims = range(x.dim())
    return call.add(call.name, x, dim=as_tuple(dims), keepdim=given["keepdim"])


@converts("norm", "linalg_vector_norm", "vector_norm")
def _convert_norm(call: TorchCall) -> str:
    given = call.bind("input", p=2.0, dim=None, keepdim=False)
    # `torch.linalg` calls it `ord`; the Frobenius norm of a vector is its 2-norm.
    order = given.get("ord", given["p"])
    if order == "fro":
        order = 2.0
    return call.add(
        "norm",
        given["input"],
        p=float(order),
        dim=as_tuple(given["dim"]),
        keepdim=given["keepdim"],
    )


@converts("softmax", "log_softmax", "_softmax")
def _convert_softmax(call: TorchCall) -> str:
    given = call.bind("input", dim=-1)
    return call.add(call.name.lstrip("_"), given["input"], dim=given["dim"])


@converts("matmul", "bmm", "mm", "reversed matmul")
def _convert_matmul(call: TorchCall) -> str:
    # `torch.matmul` calls it `other`, `torch.mm` and `torch.bmm` call it `mat2`.
    second_name = "mat2"
    if "other" in call.kwargs:
        second_name = "other"
    given = call.bind("input", second_name)
    first, second = given["input"], given[second_name]
    if call.name == "reversed matmul":
        first, second = second, first
    return call.add("matmul", first, second)


@converts("addcmul")
def _convert_addcmul(call: TorchCall) -> str:
    # input + value * tensor1 * tensor2, as layer scale is written in some networks.
    given = call.bind("input", "tensor1", "tensor2", value=1)
    product = call.add("mul", given["tensor1"], given["tensor2"])
    if given["value"] != 1:
        product = call.recorder.add("mul", [product], {"other": float(given["value"])})
    return call.recorder.add("add", [call.recorder.source(given["input"]), product], {})


@converts("glu")
def _convert_glu(call: TorchCall) -> str:
    """Append the first half times the sigmoid of the second."""
    given = call.bind("input", dim=-1)
    halves = call.add("chunk", given["input"], chunks=2, dim=given["dim"])
    value = call.recorder.add("getitem", [halves], {"index": 0})
    gate = call.recorder.add("getitem", [halves], {"index": 1})
    activated = call.recorder.add("sigmoid", [gate], {})
    return call.recorder.add("mul", [value, activated], {})


@converts("scaled_dot_product_attention")
def _convert_attention(call: TorchCall) -> str:
    given = call.bind(
        "query", "key", "value", attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
    )
    # The operator table has no argument for either, and leaving them out would change the result.
    if given["is_causal"] or given.get("enable_gqa"):
        raise UnsupportedCallError("causal or grouped attention")

    inputs = [given["query"], given["key"], given["value"]]
    if given["attn_mask"] is not None:
        inputs.append(given["attn_mask"])
    return call.add("scaled_dot_product_attention", *inputs, scale=given["scale"])


@converts("pow")
def _convert_pow(call: TorchCall) -> str:
    given = call.bind("input", "exponent")
    if isinstance(given["exponent"], Tensor):
        raise UnsupportedCallError("a power by a tensor")
    return call.add("pow", given["input"], exponent=float(given["exponent"]))


@converts("maximum", "minimum")
def _convert_extremum(call: TorchCall) -> str:
    return call.add(call.name, *call.args[:2])


def _table_converter(op: str) -> Converter:
    """Return the converter of an operator whose arguments in the table are PyTorch's own."""
    arguments = OPERATORS[op].arguments
    defaults = {name: argument.default for name, argument in arguments.items()}

    def convert(call: TorchCall) -> str:
        given = call.bind("input", **defaults)
        # An argument that the table lacks may change the result, so that it is not dropped.
        unknown = set(given) - {"input", "self", *arguments, *_IGNORED}
        if unknown:
            raise UnsupportedCallError(f"{call.name} with the argument '{unknown.pop()}'")
        args = {name: given[name] for name in arguments}
        return call.add(op, given["input"], **args)

    return convert


def _all_converters() -> dict[str, Converter]:
    converters: dict[str, Converter] = {}
    for op, operator in OPERATORS.items():
        if operator.inputs == (1, 1) and not operator.layer:
            converters[op] = _table_converter(op)
    for spelling, op in _OPERATORS_BY_SPELLING.items():
        if OPERATORS[op].inputs == (1, 1):
            converters[spelling] = _table_converter(op)
    # Last, so that what is written as a function replaces what follows from the table.
    converters.update(REGISTERED)
    return converters


CONVERTERS: Mapping[str, Converter] = _all_converters()
"""By the name of a PyTorch function."""
