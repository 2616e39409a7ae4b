"""Converters of ONNX operators that work element by element, and of reductions over axes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from fertool.graph.ir import clamp_operator
from fertool.graph.onnx_builder import (
    ERF,
    Constant,
    Converter,
    Draft,
    OnnxCall,
    UnsupportedNodeError,
    Value,
    converts,
    finite_float,
    normalize_axis,
)

_PARAMETER_NAME = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
"""Names that PyTorch gives to parameters of modules."""
_SELU_ALPHA, _SELU_GAMMA = 1.67326319217681884765625, 1.05070102214813232421875
"""Of PyTorch and of ONNX; Klambauer et al. 2017, 1706.02515."""
_UNARY = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Mish": "mish",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Neg": "neg",
    "Abs": "abs",
    "HardSwish": "hardswish",
    "Erf": ERF,
}
"""Operators without attributes, by ONNX name."""
_SOFTMAXES = {"Softmax": "softmax", "LogSoftmax": "log_softmax"}
_REDUCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax"}
_NORM_ORDERS = {"ReduceL1": 1.0, "ReduceL2": 2.0}


def _unary_converter(
    op: str, arguments: Mapping[str, tuple[str, float]] | None = None
) -> Converter:
    """Return the converter of an operator with one input.

    `arguments` has ONNX's name and default for each argument of the operator table.
    """

    def convert(call: OnnxCall) -> Value:
        args = {}
        for key, (attribute, default) in (arguments or {}).items():
            args[key] = call.attributes.get(attribute, default)
        return call.add(op, call.draft(), **args)

    return convert


for _onnx_name, _op in _UNARY.items():
    converts(_onnx_name)(_unary_converter(_op))
converts("LeakyRelu")(_unary_converter("leaky_relu", {"negative_slope": ("alpha", 0.01)}))
converts("Elu")(_unary_converter("elu", {"alpha": ("alpha", 1.0)}))
converts("Celu")(_unary_converter("celu", {"alpha": ("alpha", 1.0)}))


@converts("Selu")
def _convert_selu(call: OnnxCall) -> Draft:
    alpha = call.attributes.get("alpha", _SELU_ALPHA)
    gamma = call.attributes.get("gamma", _SELU_GAMMA)
    is_standard = math.isclose(alpha, _SELU_ALPHA, rel_tol=1e-5) and math.isclose(
        gamma, _SELU_GAMMA, rel_tol=1e-5
    )
    # PyTorch's selu has no arguments.
    if not is_standard:
        raise UnsupportedNodeError("a selu with other factors")
    return call.add("selu", call.draft())


@converts("Gelu")
def _convert_gelu(call: OnnxCall) -> Draft:
    return call.add("gelu", call.draft(), approximate=call.attributes.get("approximate", "none"))


@converts("Swish")
def _convert_swish(call: OnnxCall) -> Draft:
    x = call.draft()
    alpha = call.attributes.get("alpha", 1.0)
    if alpha == 1:
        return call.add("silu", x)

    scaled = call.add("mul", x, other=alpha)
    gate = call.add("sigmoid", scaled)
    return call.add("mul", x, gate)


@converts("Reciprocal")
def _convert_reciprocal(call: OnnxCall) -> Draft:
    return call.add("pow", call.draft(), exponent=-1.0)


@converts("HardSigmoid")
def _convert_hardsigmoid(call: OnnxCall) -> Draft:
    x = call.draft()
    alpha = call.attributes.get("alpha", 0.2)
    beta = call.attributes.get("beta", 0.5)
    # PyTorch's hardsigmoid is that with 1/6; files hold it as a float32.
    if math.isclose(alpha, 1 / 6, rel_tol=1e-4) and beta == 0.5:
        return call.add("hardsigmoid", x)

    scaled = call.add("mul", x, other=alpha)
    shifted = call.add("add", scaled, other=beta)
    return call.add("clamp", shifted, min=0.0, max=1.0)


@converts("Clip")
def _convert_clip(call: OnnxCall) -> Draft:
    low = _clip_bound(call, "min", 1)
    high = _clip_bound(call, "max", 2)
    return _add_clamp(call, call.draft(), low, high)


def _clip_bound(call: OnnxCall, attribute: str, index: int) -> float | None:
    """Return a bound: an attribute before opset 11, an input since; None where there is none."""
    given = call.optional_constant(index)
    value = call.attributes.get(attribute)
    if given is not None and given.array.size:
        value = given.number
    if value is None:
        return None
    return finite_float(value)


def _add_clamp(call: OnnxCall, x: Draft, low: float | None, high: float | None) -> Draft:
    if low is None and high is None:
        return x
    op, args = clamp_operator(low, high)
    return call.add(op, x, **args)


@converts(*_SOFTMAXES)
def _convert_softmax(call: OnnxCall) -> Draft:
    x = call.draft()
    # Before opset 13 a softmax went over all axes from the named one on, by default from 1.
    is_over_several = call.opset < 13
    default = -1
    if is_over_several:
        default = 1
    axis = call.axis(default, len(x.shape))
    if x.is_batch_axis(axis):
        raise UnsupportedNodeError("it mixes the images of a batch")
    if is_over_several and math.prod(x.shape[axis + 1 :]) != 1:
        raise UnsupportedNodeError("a softmax over several axes")

    return call.add(_SOFTMAXES[call.node.op_type], x, dim=axis)


@converts("Add", "Sub", "Mul", "Div")
def _convert_arithmetic(call: OnnxCall) -> Value:
    op = call.node.op_type.lower()
    first, second = call.value(0), call.value(1)
    if isinstance(first, Draft) and _is_scalar_beside(second, first):
        return call.add(op, first, other=_scalar(second))
    if isinstance(second, Draft) and _is_scalar_beside(first, second):
        return _add_scalar_first(call, op, _scalar(first), second)
    return call.add(op, call.draft(0), call.draft(1))


def _add_scalar_first(call: OnnxCall, op: str, number: float, x: Draft) -> Draft:
    """Append `number op x`; the operator table has numbers as second operands only."""
    if op == "sub":
        negated = call.add("mul", x, other=-1.0)
        return call.add("add", negated, other=number)
    if op == "div":
        inverse = call.add("pow", x, exponent=-1.0)
        if number == 1:
            return inverse
        return call.add("mul", inverse, other=number)
    return call.add(op, x, other=number)


def _is_scalar_beside(value: Value, operand: Draft) -> bool:
    """Whether a value is a plain number, which leaves the shape of the other operand as it is.

    A single number with the name of a parameter is one that was learned: it stays a tensor.
    """
    if not isinstance(value, Constant) or _PARAMETER_NAME.fullmatch(value.name):
        return False
    return value.array.size == 1 and value.array.ndim <= len(operand.shape)


def _scalar(value: Value) -> float:
    if not isinstance(value, Constant) or value.number is None:
        raise UnsupportedNodeError("arithmetic with a tensor where a number was expected")
    finite = finite_float(value.number)
    if finite is None:
        raise UnsupportedNodeError(f"arithmetic with {value.number}")
    return finite


@converts("Sum", "Mean")
def _convert_sum(call: OnnxCall) -> Draft:
    terms = [call.draft(index) for index in range(len(call.inputs))]
    total = terms[0]
    for term in terms[1:]:
        total = call.add("add", total, term)
    if call.node.op_type == "Sum":
        return total
    return call.add("div", total, other=float(len(terms)))


@converts("Max", "Min")
def _convert_extremum(call: OnnxCall) -> Draft:
    values = [call.value(index) for index in range(len(call.inputs))]
    first = next(value for value in values if isinstance(value, Draft))
    values.remove(first)
    result = first
    for value in values:
        # The extremum of a result with itself is the result.
        if value is not result:
            result = _add_extremum(call, result, value)
    return result


def _add_extremum(call: OnnxCall, x: Draft, value: Value) -> Draft:
    """Append the maximum or minimum of a draft and another value; with a number it is a clamp."""
    is_max = call.node.op_type == "Max"
    if _is_scalar_beside(value, x):
        bound = _scalar(value)
        if is_max:
            return _add_clamp(call, x, low=bound, high=None)
        return _add_clamp(call, x, low=None, high=bound)

    if isinstance(value, Constant):
        value = call.add_tensor(value)
    if is_max:
        return call.add("maximum", x, value)
    return call.add("minimum", x, value)


@converts("Pow")
def _convert_pow(call: OnnxCall) -> Draft:
    exponent = call.constant(1)
    if exponent.number is None:
        raise UnsupportedNodeError("a power by a tensor")
    return call.add("pow", call.draft(), exponent=exponent.number)


@converts(*_REDUCTIONS, *_NORM_ORDERS)
def _convert_reduction(call: OnnxCall) -> Draft:
    x = call.draft()
    given = call.integers("axes", 1)
    if not given and call.attributes.get("noop_with_empty_axes"):
        return x

    rank = len(x.shape)
    axes = tuple(normalize_axis(axis, rank) for axis in given or range(rank))
    if any(map(x.is_batch_axis, axes)):
        raise UnsupportedNodeError("it mixes the images of a batch")

    keepdim = bool(call.attributes.get("keepdims", 1))
    op = _REDUCTIONS.get(call.node.op_type)
    if op is not None:
        return call.add(op, x, dim=axes, keepdim=keepdim)
    order = _NORM_ORDERS[call.node.op_type]
    return call.add("norm", x, p=order, dim=axes, keepdim=keepdim)


@converts("DequantizeLinear")
def _convert_dequantize(call: OnnxCall) -> Draft:
    """Convert uint8 pixels to real numbers at the start of a graph.

    Other uses belong to quantized networks, which are refused before.
    """
    x = call.draft()
    scale = call.constant(1)
    zero_point = call.optional_constant(2)
    if scale.number is None or (zero_point is not None and zero_point.number is None):
        raise UnsupportedNodeError("a scale for each channel")

    shifted = x
    if zero_point is not None and zero_point.number:
        shifted = call.add("sub", x, other=zero_point.number)
    return call.add("mul", shifted, other=_scalar(scale))
