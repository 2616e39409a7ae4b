"""The readers of calls that compute without tensors of their own, and the register of all readers.

Operators whose arguments are PyTorch's own need no reader.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

# Importing these modules registers their readers.
from fertool.graph import read_layers as read_layers
from fertool.graph import read_moves as read_moves
from fertool.graph.calls import WRITTEN, Call, Reader, UnknownCallError, per_axis, reads
from fertool.graph.operators import OPERATORS

_UNSAID = ("inplace", "_stacklevel", "dtype", "out", "generator", "training", "train")
"""Arguments that change nothing about what is deployed."""


@reads(
    *(
        "contiguous",
        "clone",
        "detach",
        "to",
        "float",
        "type_as",
        "type",
        "alias",
        "lift_fresh",
        "get data",
        "cpu",
    ),
    *("cuda", "positive", "_to_copy", "alias_copy"),
)
def _same(call: Call) -> str:
    return call.recorder.source(call.args[0] if call.args else call.kwargs["input"])


@reads("dropout", "native_dropout", "dropout1d", "dropout2d", "feature_dropout", "alpha_dropout")
def _dropout(call: Call) -> str:
    given = call.bound("input", p=0.5)
    op = {"native_dropout": "dropout", "feature_dropout": "dropout2d"}.get(call.name, call.name)
    return call.add(op, given["input"], p=given["p"])


@reads("add", "sub", "mul", "div", "truediv", "divide", "multiply", "subtract", "true_divide")
def _arithmetic(call: Call) -> str:
    given = call.bound("input", "other", alpha=1)
    x, other, op = given["input"], given["other"], _SPELLINGS.get(call.name, call.name)
    if given.get("rounding_mode") is not None:
        raise UnknownCallError(f"{call.name} that rounds")
    if given["alpha"] != 1:
        return _scaled_sum(call, op, x, other, float(given["alpha"]))
    if not isinstance(other, Tensor):
        return call.add(op, x, other=float(other))
    if not isinstance(x, Tensor):
        return call.add(op, other, other=float(x))
    if other.dim() == 0 and call.recorder.tensor_name(other) is None:
        return call.add(op, x, other=float(other))
    return call.add(op, x, other)


def _scaled_sum(call: Call, op: str, x: Any, other: Any, alpha: float) -> str:
    """Write `x + alpha other`, or the difference."""
    if not isinstance(other, Tensor):
        return call.add(op, x, other=alpha * other)
    scaled = call.add("mul", other, other=alpha)
    return call.recorder.add(op, [call.recorder.source(x), scaled], {})


@reads("reversed add", "reversed mul")
def _commuted(call: Call) -> str:
    call.name = call.name.removeprefix("reversed ")
    return _arithmetic(call)


@reads("reversed sub", "rsub")
def _subtracted_from(call: Call) -> str:
    given = call.bound("input", "other")
    negative = call.add("mul", given["input"], other=-1.0)
    return call.recorder.add("add", [negative], {"other": float(given["other"])})


@reads("reversed div", "reversed truediv", "reciprocal")
def _divided_by(call: Call) -> str:
    given = call.bound("input", other=1.0)
    inverse = call.add("pow", given["input"], exponent=-1.0)
    return call.recorder.add("mul", [inverse], {"other": float(given["other"])})


@reads("relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "relu")
def _clipped(call: Call) -> str:
    names: Mapping[str, Mapping[str, float | None]] = {
        "hardtanh": {"min_val": -1.0, "max_val": 1.0},
        "clamp_max": {"max": None},
    }
    given = call.bound("input", **names.get(call.name, {"min": None, "max": None}))
    low, high = given.get("min_val", given.get("min")), given.get("max_val", given.get("max"))
    if call.name in ("relu", "relu6"):
        return call.add(call.name, given["input"])
    if low == 0 and high in (6, None):
        return call.add("relu" if high is None else "relu6", given["input"])
    return call.add("clamp", given["input"], min=_number(low), max=_number(high))


@reads("max_pool2d", "max_pool2d_with_indices", "_max_pool2d")
def _max_pool(call: Call) -> str:
    given = call.bound("input", "kernel_size", stride=None, padding=0, dilation=1, ceil_mode=False)
    if given.get("return_indices"):
        raise UnknownCallError("a maximum with its place")
    kernel = per_axis(given["kernel_size"], 2)
    return call.add(
        "max_pool2d",
        given["input"],
        kernel_size=kernel,
        stride=per_axis(given["stride"], 2) if given["stride"] else kernel,
        padding=per_axis(given["padding"], 2),
        dilation=per_axis(given["dilation"], 2),
        ceil_mode=given["ceil_mode"],
    )


@reads("avg_pool2d")
def _average_pool(call: Call) -> str:
    given = call.bound(
        "input",
        "kernel_size",
        stride=None,
        padding=0,
        ceil_mode=False,
        count_include_pad=True,
        divisor_override=None,
    )
    if given["divisor_override"] is not None:
        raise UnknownCallError("an average with another divisor")
    kernel = per_axis(given["kernel_size"], 2)
    return call.add(
        "avg_pool2d",
        given["input"],
        kernel_size=kernel,
        stride=per_axis(given["stride"], 2) if given["stride"] else kernel,
        padding=per_axis(given["padding"], 2),
        ceil_mode=given["ceil_mode"],
        count_include_pad=given["count_include_pad"],
    )


@reads("adaptive_avg_pool2d", "adaptive_max_pool2d")
def _adaptive_pool(call: Call) -> str:
    given = call.bound("input", "output_size")
    return call.add(call.name, given["input"], output_size=tuple(call.result.shape[2:]))


@reads(
    "interpolate",
    "upsample",
    "upsample_nearest",
    "upsample_nearest2d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
)
def _interpolated(call: Call) -> str:
    given = call.bound("input", size=None, scale_factor=None, mode="nearest", align_corners=None)
    modes = {"upsample_bilinear2d": "bilinear", "upsample_bicubic2d": "bicubic"}
    corners = given["align_corners"]
    if call.name.endswith("2d"):
        given["mode"] = modes.get(call.name, "nearest")
        corners = given["scale_factor"] if isinstance(given["scale_factor"], bool) else corners
    if given.get("antialias"):
        raise UnknownCallError("interpolation with antialiasing")
    mode = given["mode"]
    return call.add(
        "interpolate",
        given["input"],
        size=tuple(call.result.shape[2:]),
        mode=mode,
        align_corners=bool(corners) if mode in ("bilinear", "bicubic") else None,
    )


@reads("pad", "constant_pad_nd", "reflection_pad2d", "replication_pad2d")
def _padded(call: Call) -> str:
    given = call.bound("input", "pad", mode="constant", value=0.0)
    modes = {"reflection_pad2d": "reflect", "replication_pad2d": "replicate"}
    if call.name == "constant_pad_nd":
        given = {**call.bound("input", "pad", value=0.0), "mode": "constant"}
    mode, widths = modes.get(call.name, given["mode"]), tuple(int(width) for width in given["pad"])
    if not any(widths):
        return _same(call)
    return call.add("pad", given["input"], pad=widths, mode=mode, value=float(given["value"] or 0))


@reads("mean", "sum", "amax")
def _reduced(call: Call) -> str:
    given = call.bound("input", dim=None, keepdim=False)
    x, dims = given["input"], given["dim"]
    if "axis" in given:
        dims = given["axis"]
    dims = (
        tuple(range(x.dim())) if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    )
    return call.add(call.name, x, dim=dims, keepdim=given["keepdim"])


@reads("norm", "linalg_vector_norm", "vector_norm")
def _norm(call: Call) -> str:
    given = call.bound("input", p=2.0, dim=None, keepdim=False)
    order, dims = given.get("ord", given["p"]), given["dim"]
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    return call.add(
        "norm",
        given["input"],
        p=2.0 if order == "fro" else float(order),
        dim=dims,
        keepdim=given["keepdim"],
    )


@reads("softmax", "log_softmax", "_softmax")
def _softmax(call: Call) -> str:
    given = call.bound("input", dim=-1)
    return call.add(call.name.lstrip("_"), given["input"], dim=given["dim"])


@reads("matmul", "bmm", "mm", "reversed matmul")
def _product(call: Call) -> str:
    given = call.bound("input", "other" if "other" in call.kwargs else "mat2")
    one, two = given["input"], given.get("other", given.get("mat2"))
    return (
        call.add("matmul", two, one)
        if call.name.startswith("reversed")
        else call.add("matmul", one, two)
    )


@reads("addcmul")
def _added_product(call: Call) -> str:
    given = call.bound("input", "tensor1", "tensor2", value=1)
    product = call.add("mul", given["tensor1"], given["tensor2"])
    if given["value"] != 1:
        product = call.recorder.add("mul", [product], {"other": float(given["value"])})
    return call.recorder.add("add", [call.recorder.source(given["input"]), product], {})


@reads("glu")
def _gated_half(call: Call) -> str:
    """The first half times the sigmoid of the second."""
    given = call.bound("input", dim=-1)
    halves = call.add("chunk", given["input"], chunks=2, dim=given["dim"])
    value, gate = (call.recorder.add("getitem", [halves], {"index": index}) for index in (0, 1))
    opened = call.recorder.add("sigmoid", [gate], {})
    return call.recorder.add("mul", [value, opened], {})


@reads("scaled_dot_product_attention")
def _attention(call: Call) -> str:
    given = call.bound(
        "query", "key", "value", attn_mask=None, dropout_p=0.0, is_causal=False, scale=None
    )
    if given["is_causal"] or given.get("enable_gqa"):
        raise UnknownCallError("causal or grouped attention")
    mask = [] if given["attn_mask"] is None else [given["attn_mask"]]
    return call.add(
        "scaled_dot_product_attention",
        given["query"],
        given["key"],
        given["value"],
        *mask,
        scale=given["scale"],
    )


@reads("normalize")
def _normalized(call: Call) -> str:
    given = call.bound("input", p=2.0, dim=1, eps=1e-12)
    return call.add("normalize", given["input"], p=given["p"], dim=given["dim"], eps=given["eps"])


@reads("pow")
def _power(call: Call) -> str:
    given = call.bound("input", "exponent")
    if isinstance(given["exponent"], Tensor):
        raise UnknownCallError("a power by a tensor")
    return call.add("pow", given["input"], exponent=float(given["exponent"]))


def _plain(op: str) -> Reader:
    """Return the reader of an operator whose arguments are PyTorch's own."""

    def read(call: Call) -> str:
        arguments = OPERATORS[op].arguments
        given = call.bound(
            "input", **{name: argument.default for name, argument in arguments.items()}
        )
        unknown = set(given) - {"input", "self", *arguments, *_UNSAID}
        if unknown:
            raise UnknownCallError(f"{call.name} with the argument '{unknown.pop()}'")
        return call.add(op, given["input"], **{name: given[name] for name in arguments})

    return read


def _number(value: Any) -> float | None:
    return None if value is None or math.isinf(value) else float(value)


_SPELLINGS = {spelling: op for op, operator in OPERATORS.items() for spelling in operator.aliases}
READERS: Mapping[str, Reader] = {
    **{
        op: _plain(op)
        for op, operator in OPERATORS.items()
        if operator.inputs == (1, 1) and not operator.layer
    },
    **{
        spelling: _plain(op)
        for spelling, op in _SPELLINGS.items()
        if OPERATORS[op].inputs == (1, 1)
    },
    "maximum": lambda call: call.add("maximum", *call.args[:2]),
    "minimum": lambda call: call.add("minimum", *call.args[:2]),
    **WRITTEN,
}
"""By the name of a PyTorch function, what writes a call of it as nodes."""
