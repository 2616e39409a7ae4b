"""The readers of calls without tensors of their own; operators whose arguments are PyTorch's need none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from fertool.graph import read_layers as read_layers
from fertool.graph.calls import WRITTEN, Call, Reader, UnknownCallError, per_axis, reads
from fertool.graph.operators import OPERATORS

_UNSAID = ("inplace", "_stacklevel", "dtype", "out", "generator", "training", "train")
"""Arguments that change nothing about what is deployed."""


@reads(
    *("contiguous", "clone", "detach", "to", "float", "type_as", "type", "alias", "lift_fresh", "get data", "cpu"),
    *("cuda", "positive", "_to_copy", "alias_copy"),
)
def _same(call: Call) -> str:
    return call.recorder.source(call.args[0] if call.args else call.kwargs["input"])


@reads("dropout", "dropout2d", "dropout1d", "alpha_dropout", "feature_dropout", "native_dropout")
def _dropout(call: Call) -> str:
    given = call.bound("input", p=0.5)
    return call.add("dropout", given["input"], p=given["p"])


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


@reads("relu6", "hardtanh", "clamp", "clip", "clamp_min", "clamp_max", "relu", "threshold")
def _clipped(call: Call) -> str:
    names: Mapping[str, Mapping[str, float | None]] = {
        "hardtanh": {"min_val": -1.0, "max_val": 1.0},
        "clamp_max": {"max": None},
    }
    given = call.bound("input", **names.get(call.name, {"min": None, "max": None}))
    low, high = given.get("min_val", given.get("min")), given.get("max_val", given.get("max"))
    if call.name in ("relu", "relu6"):
        return call.add(call.name, given["input"])
    if call.name == "threshold":
        raise UnknownCallError("the function 'threshold' is not in the operator table")
    if low == 0 and high in (6, None):
        return call.add("relu" if high is None else "relu6", given["input"])
    return call.add("clamp", given["input"], min=_number(low), max=_number(high))


@reads("max_pool2d", "max_pool2d_with_indices", "boolean_dispatch", "_max_pool2d")
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
        "input", "kernel_size", stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None
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


@reads("interpolate", "upsample", "upsample_nearest", "upsample_nearest2d", "upsample_bilinear2d", "upsample_bicubic2d")
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
    dims = tuple(range(x.dim())) if dims is None else (dims,) if isinstance(dims, int) else tuple(dims)
    return call.add(call.name, x, dim=dims, keepdim=given["keepdim"])


@reads("norm", "linalg_vector_norm", "vector_norm")
def _norm(call: Call) -> str:
    given = call.bound("input", p=2.0, dim=None, keepdim=False)
    order, dims = given.get("ord", given["p"]), given["dim"]
    dims = (dims,) if isinstance(dims, int) else tuple(dims)
    return call.add(
        "norm", given["input"], p=2.0 if order == "fro" else float(order), dim=dims, keepdim=given["keepdim"]
    )


@reads("view", "reshape", "_unsafe_view", "view_as", "unflatten", "reshape_as")
def _reshaped(call: Call) -> str:
    x, first = call.args[0], call.args[1] if len(call.args) > 1 else None
    if isinstance(first, torch.dtype):
        raise UnknownCallError("a view as another type")
    written = call.kwargs.get("shape", call.kwargs.get("size", call.args[1:]))
    if len(written) == 1 and isinstance(written[0], tuple | list):
        written = written[0]
    shape = tuple(call.result.shape)
    if call.name in ("view", "reshape", "_unsafe_view") and -1 in written:
        shape = tuple(int(size) for size in written)
    return call.add("reshape", x, shape=shape)


@reads("expand", "expand_as")
def _expanded(call: Call) -> str:
    x, shape = call.args[0], tuple(call.result.shape)
    new = len(shape) - x.dim()
    kept = [*[None] * new, *x.shape]
    return call.add("expand", x, shape=tuple(-1 if a == b else b for a, b in zip(kept, shape, strict=True)))


@reads("flatten")
def _flattened(call: Call) -> str:
    given = call.bound("input", start_dim=0, end_dim=-1)
    return call.add("flatten", given["input"], start_dim=given["start_dim"], end_dim=given["end_dim"])


@reads("permute", "get T", "get mT", "t", "swapaxes", "swapdims", "transpose")
def _permuted(call: Call) -> str:
    x = call.args[0]
    if call.name == "permute":
        dims = call.kwargs.get("dims", call.args[1:])
        return call.add("permute", x, dims=tuple(dims[0] if isinstance(dims[0], tuple | list) else dims))
    if call.name in ("get T", "get mT", "t"):
        return call.add("transpose", x, dim0=-2, dim1=-1)
    given = call.bound("input", "dim0", "dim1")
    return call.add("transpose", x, dim0=given["dim0"], dim1=given["dim1"])


@reads("movedim", "moveaxis")
def _moved(call: Call) -> str:
    given = call.bound("input", "source", "destination")
    x = given["input"]
    sources, targets = ([axis % x.dim() for axis in _as_tuple(given[side])] for side in ("source", "destination"))
    order = [axis for axis in range(x.dim()) if axis not in sources]
    for target, source in sorted(zip(targets, sources, strict=True)):
        order.insert(target, source)
    return call.add("permute", x, dims=tuple(order))


@reads("squeeze")
def _squeezed(call: Call) -> str:
    given = call.bound("input", dim=None)
    x, dims = given["input"], given["dim"]
    if dims is None:
        dims = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    return call.add("squeeze", x, dim=(dims,) if isinstance(dims, int) else tuple(dims))


@reads("cat", "concat", "concatenate", "stack")
def _joined(call: Call) -> str:
    given = call.bound("tensors", dim=0)
    op = "stack" if call.name == "stack" else "cat"
    return call.add(op, *given["tensors"], dim=given.get("axis", given["dim"]))


@reads("chunk", "unbind")
def _parts(call: Call) -> str:
    given = call.bound("input", "chunks", dim=0) if call.name == "chunk" else call.bound("input", dim=0)
    args = {"dim": given["dim"], **({"chunks": given["chunks"]} if call.name == "chunk" else {})}
    return call.add(call.name, given["input"], **args)


@reads("split", "split_with_sizes", "tensor_split", "unsafe_split")
def _split(call: Call) -> str:
    given = call.bound("input", "sizes", dim=0)
    dim = given["dim"]
    return call.add("split", given["input"], sizes=tuple(part.shape[dim] for part in call.result), dim=dim)


@reads("select")
def _selected(call: Call) -> str:
    given = call.bound("input", "dim", "index")
    return call.add("select", given["input"], dim=given["dim"], index=given["index"])


@reads("slice", "narrow")
def _cut(call: Call) -> str:
    if call.name == "narrow":
        given = call.bound("input", "dim", "start", "length")
        given["end"], given["step"] = given["start"] + given["length"], 1
    else:
        given = call.bound("input", dim=0, start=None, end=None, step=1)
    return _slice(call, given["input"], given["dim"], slice(given["start"], given["end"], given["step"]))


@reads("getitem")
def _indexed(call: Call) -> str:
    x, index = call.args
    entries = list(index) if isinstance(index, tuple) else [index]
    if Ellipsis in [entry for entry in entries if not isinstance(entry, Tensor)]:
        at = entries.index(Ellipsis)
        named = sum(entry is not None for entry in entries) - 1
        entries[at : at + 1] = [slice(None)] * (x.dim() - named)
    name, axis = call.recorder.source(x), 0
    sizes = list(x.shape)
    for entry in entries:
        if entry is None:
            name = call.recorder.add("unsqueeze", [name], {"dim": axis})
            sizes.insert(axis, 1)
        elif isinstance(entry, bool) or not isinstance(entry, int | slice):
            raise UnknownCallError("indexing by a tensor")
        elif isinstance(entry, int):
            name = call.recorder.add("select", [name], {"dim": axis, "index": entry})
            sizes.pop(axis)
            continue
        elif entry != slice(None):
            name = _added_slice(call, name, axis, entry, sizes[axis])
        axis += 1
    return name


def _slice(call: Call, x: Any, axis: int, entry: slice) -> str:
    return _added_slice(call, call.recorder.source(x), axis, entry, x.shape[axis])


def _added_slice(call: Call, name: str, axis: int, entry: slice, size: int) -> str:
    start, end, step = entry.indices(size)
    if (start, end, step) == (0, size, 1):
        return name
    return call.recorder.add("slice", [name], {"dim": axis, "start": start, "end": end, "step": step})


@reads("softmax", "log_softmax", "_softmax")
def _softmax(call: Call) -> str:
    given = call.bound("input", dim=-1)
    return call.add(call.name.lstrip("_"), given["input"], dim=given["dim"])


@reads("matmul", "bmm", "mm", "reversed matmul")
def _product(call: Call) -> str:
    return call.add("matmul", call.args[0], call.args[1] if len(call.args) > 1 else call.kwargs["other"])


@reads("scaled_dot_product_attention")
def _attention(call: Call) -> str:
    given = call.bound("query", "key", "value", attn_mask=None, dropout_p=0.0, is_causal=False, scale=None)
    if given["is_causal"] or given.get("enable_gqa"):
        raise UnknownCallError("causal or grouped attention")
    mask = [] if given["attn_mask"] is None else [given["attn_mask"]]
    return call.add(
        "scaled_dot_product_attention", given["query"], given["key"], given["value"], *mask, scale=given["scale"]
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


@reads("roll", "flip")
def _rolled(call: Call) -> str:
    names = ("shifts", "dims") if call.name == "roll" else ("dims",)
    given = call.bound("input", *names)
    args: dict[str, Any] = {name: _as_tuple(given[name]) for name in names}
    return call.add(call.name, given["input"], **args)


def _plain(op: str) -> Reader:
    """Return the reader of an operator whose arguments are PyTorch's own."""

    def read(call: Call) -> str:
        arguments = OPERATORS[op].arguments
        given = call.bound("input", **{name: argument.default for name, argument in arguments.items()})
        unknown = set(given) - {"input", "self", *arguments, *_UNSAID}
        if unknown:
            raise UnknownCallError(f"{call.name} with the argument '{unknown.pop()}'")
        return call.add(op, given["input"], **{name: given[name] for name in arguments})

    return read


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)


def _number(value: Any) -> float | None:
    return None if value is None or math.isinf(value) else float(value)


_SPELLINGS = {spelling: op for op, operator in OPERATORS.items() for spelling in operator.spellings}
READERS: Mapping[str, Reader] = {
    **{op: _plain(op) for op, operator in OPERATORS.items() if operator.inputs == (1, 1) and not operator.layer},
    **{spelling: _plain(op) for spelling, op in _SPELLINGS.items() if OPERATORS[op].inputs == (1, 1)},
    "maximum": lambda call: call.add("maximum", *call.args[:2]),
    "minimum": lambda call: call.add("minimum", *call.args[:2]),
    **WRITTEN,
}
"""By the name of a PyTorch function, what writes a call of it as nodes."""
