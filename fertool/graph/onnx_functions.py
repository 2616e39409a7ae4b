"""The readers of ONNX operators that work element by element, and of those that reduce axes."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from functools import reduce

from fertool.graph.onnx_values import (
    ERF,
    Call,
    Constant,
    Draft,
    Reader,
    UnreadableNodeError,
    Value,
    front,
    reads,
    real,
)

_LEARNED = re.compile(r"[A-Za-z_]\w*(\.\w+)+")
"""Names that PyTorch gives to parameters of modules."""
_SELU = (1.67326319217681884765625, 1.05070102214813232421875)


def _unary(op: str, arguments: Mapping[str, tuple[str, float]] | None = None) -> Reader:
    """Return the reader of an operator with one input, given ONNX's name and default for the table's arguments."""

    def read(call: Call) -> Value:
        args = {
            key: call.attributes.get(name, default)
            for key, (name, default) in (arguments or {}).items()
        }
        return call.add(op, call.flow(), **args)

    return read


for _name, _op in {
    **{
        name: name.lower()
        for name in (
            "Relu",
            "Sigmoid",
            "Tanh",
            "Mish",
            "Softplus",
            "Softsign",
            "Exp",
            "Sqrt",
            "Neg",
            "Abs",
        )
    },
    "HardSwish": "hardswish",
    "Erf": ERF,
}.items():
    reads(_name)(_unary(_op))
reads("LeakyRelu")(_unary("leaky_relu", {"negative_slope": ("alpha", 0.01)}))
reads("Elu")(_unary("elu", {"alpha": ("alpha", 1.0)}))
reads("Celu")(_unary("celu", {"alpha": ("alpha", 1.0)}))


@reads("Selu")
def _selu(call: Call) -> Draft:
    given = (call.attributes.get("alpha", _SELU[0]), call.attributes.get("gamma", _SELU[1]))
    if not all(math.isclose(a, b, rel_tol=1e-5) for a, b in zip(given, _SELU, strict=True)):
        raise UnreadableNodeError("a selu with other factors")
    return call.add("selu", call.flow())


@reads("Gelu")
def _gelu(call: Call) -> Draft:
    return call.add("gelu", call.flow(), approximate=call.attributes.get("approximate", "none"))


@reads("Swish")
def _swish(call: Call) -> Draft:
    x, alpha = call.flow(), call.attributes.get("alpha", 1.0)
    if alpha == 1:
        return call.add("silu", x)
    return call.add("mul", x, call.add("sigmoid", call.add("mul", x, other=alpha)))


@reads("Reciprocal")
def _reciprocal(call: Call) -> Draft:
    return call.add("pow", call.flow(), exponent=-1.0)


@reads("HardSigmoid")
def _hardsigmoid(call: Call) -> Draft:
    x, alpha, beta = (
        call.flow(),
        call.attributes.get("alpha", 0.2),
        call.attributes.get("beta", 0.5),
    )
    if math.isclose(alpha, 1 / 6, rel_tol=1e-4) and beta == 0.5:
        return call.add("hardsigmoid", x)
    return call.add(
        "clamp", call.add("add", call.add("mul", x, other=alpha), other=beta), min=0.0, max=1.0
    )


@reads("Clip")
def _clip(call: Call) -> Draft:
    low, high = (_bound(call, name, index) for index, name in enumerate(("min", "max"), start=1))
    return _between(call, call.flow(), low, high)


def _bound(call: Call, name: str, index: int) -> float | None:
    given = call.optional(index)
    value = call.attributes.get(name) if given is None or not given.array.size else given.number
    return None if value is None else real(value)


def _between(call: Call, x: Draft, low: float | None, high: float | None) -> Draft:
    if low is None and high is None:
        return x
    if low == 0 and high in (6, None):
        return call.add("relu" if high is None else "relu6", x)
    return call.add("clamp", x, min=low, max=high)


@reads("Softmax", "LogSoftmax")
def _softmax(call: Call) -> Draft:
    x = call.flow()
    axis = call.axis(-1 if call.opset >= 13 else 1, len(x.shape))
    if x.has_images_along(axis):
        raise UnreadableNodeError("it mixes the images of a batch")
    # Until opset 13 a softmax went over all axes from the one that is named.
    if call.opset < 13 and math.prod(x.shape[axis + 1 :]) != 1:
        raise UnreadableNodeError("a softmax over several axes")
    return call.add("softmax" if call.node.op_type == "Softmax" else "log_softmax", x, dim=axis)


@reads("Add", "Sub", "Mul", "Div")
def _arithmetic(call: Call) -> Value:
    op = call.node.op_type.lower()
    first, second = call.value(0), call.value(1)
    if isinstance(first, Draft) and _is_scalar(second, first):
        return call.add(op, first, other=_number(second))
    if isinstance(second, Draft) and _is_scalar(first, second):
        return _of_number(call, op, _number(first), second)
    return call.add(op, call.flow(0), call.flow(1))


def _of_number(call: Call, op: str, number: float, x: Draft) -> Draft:
    """Write `number op x`."""
    if op == "sub":
        return call.add("add", call.add("mul", x, other=-1.0), other=number)
    if op == "div":
        inverse = call.add("pow", x, exponent=-1.0)
        return inverse if number == 1 else call.add("mul", inverse, other=number)
    return call.add(op, x, other=number)


def _is_scalar(value: Value, beside: Draft) -> bool:
    """Whether a value is a number that leaves the shape of a tensor beside it, and none that PyTorch has learned."""
    if not isinstance(value, Constant) or _LEARNED.fullmatch(value.name):
        return False
    return value.array.size == 1 and value.array.ndim <= len(beside.shape)


def _number(value: Value) -> float:
    number = value.number if isinstance(value, Constant) else None
    bounded = None if number is None else real(number)
    if bounded is None:
        raise UnreadableNodeError(f"arithmetic with {number}")
    return bounded


@reads("Sum", "Mean")
def _sum(call: Call) -> Draft:
    terms = [call.flow(index) for index in range(len(call.inputs))]
    total = reduce(lambda a, b: call.add("add", a, b), terms)
    return total if call.node.op_type == "Sum" else call.add("div", total, other=float(len(terms)))


@reads("Max", "Min")
def _extreme(call: Call) -> Draft:
    is_max = call.node.op_type == "Max"
    values = [call.value(index) for index in range(len(call.inputs))]
    result = next(value for value in values if isinstance(value, Draft))
    for value in values:
        if value is result:
            continue
        if _is_scalar(value, result):
            number = _number(value)
            result = _between(call, result, number if is_max else None, None if is_max else number)
        else:
            other = value if isinstance(value, Draft) else call.parameter(value)
            result = call.add("maximum" if is_max else "minimum", result, other)
    return result


@reads("Pow")
def _power(call: Call) -> Draft:
    exponent = call.constant(1)
    if exponent.number is None:
        raise UnreadableNodeError("a power by a tensor")
    return call.add("pow", call.flow(), exponent=exponent.number)


_REDUCTIONS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "amax"}


@reads(*_REDUCTIONS, "ReduceL2", "ReduceL1")
def _reduction(call: Call) -> Draft:
    x, given = call.flow(), call.integers("axes", 1)
    if not given and call.attributes.get("noop_with_empty_axes"):
        return x
    axes = tuple(front(axis, len(x.shape)) for axis in given or range(len(x.shape)))
    if any(map(x.has_images_along, axes)):
        raise UnreadableNodeError("it mixes the images of a batch")
    args = {"dim": axes, "keepdim": bool(call.attributes.get("keepdims", 1))}
    op = _REDUCTIONS.get(call.node.op_type)
    if op is not None:
        return call.add(op, x, **args)
    return call.add("norm", x, p=2.0 if call.node.op_type == "ReduceL2" else 1.0, **args)


@reads("DequantizeLinear")
def _dequantize(call: Call) -> Draft:
    """Read the step from whole pixels to real ones at the start of a graph; other uses are refused before."""
    x, scale, zero = call.flow(), call.constant(1), call.optional(2)
    if scale.number is None or (zero is not None and zero.number is None):
        raise UnreadableNodeError("a scale for each channel")
    shifted = call.add("sub", x, other=zero.number) if zero is not None and zero.number else x
    return call.add("mul", shifted, other=_number(scale))
