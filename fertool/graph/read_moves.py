"""The readers of calls that move values and compute none: views, parts, joins."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fertool.graph.calls import Call, UnknownCallError, reads


@reads("view", "reshape", "_unsafe_view", "view_as", "unflatten", "reshape_as")
def _reshaped(call: Call) -> str:
    x, first = call.args[0], call.args[1] if len(call.args) > 1 else None
    if isinstance(first, torch.dtype):
        raise UnknownCallError("a view as another type")
    # Sizes as they came out; what may stay free is found when both runs are there.
    return call.add("reshape", x, shape=tuple(call.result.shape))


@reads("expand", "expand_as")
def _expanded(call: Call) -> str:
    x, shape = call.args[0], tuple(call.result.shape)
    new = len(shape) - x.dim()
    kept = [*[None] * new, *x.shape]
    return call.add(
        "expand", x, shape=tuple(-1 if a == b else b for a, b in zip(kept, shape, strict=True))
    )


@reads("flatten")
def _flattened(call: Call) -> str:
    given = call.bound("input", start_dim=0, end_dim=-1)
    return call.add(
        "flatten", given["input"], start_dim=given["start_dim"], end_dim=given["end_dim"]
    )


@reads("permute", "get T", "get mT", "t", "swapaxes", "swapdims", "transpose")
def _permuted(call: Call) -> str:
    x = call.args[0]
    if call.name == "permute":
        dims = call.kwargs.get("dims", call.args[1:])
        return call.add(
            "permute", x, dims=tuple(dims[0] if isinstance(dims[0], tuple | list) else dims)
        )
    if call.name in ("get T", "get mT", "t"):
        return call.add("transpose", x, dim0=-2, dim1=-1)
    given = call.bound("input", "dim0", "dim1")
    return call.add("transpose", x, dim0=given["dim0"], dim1=given["dim1"])


@reads("movedim", "moveaxis")
def _moved(call: Call) -> str:
    given = call.bound("input", "source", "destination")
    x = given["input"]
    sources, targets = (
        [axis % x.dim() for axis in _as_tuple(given[side])] for side in ("source", "destination")
    )
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
    given = (
        call.bound("input", "chunks", dim=0) if call.name == "chunk" else call.bound("input", dim=0)
    )
    args = {"dim": given["dim"], **({"chunks": given["chunks"]} if call.name == "chunk" else {})}
    return call.add(call.name, given["input"], **args)


@reads("split", "split_with_sizes", "tensor_split", "unsafe_split")
def _split(call: Call) -> str:
    given = call.bound("input", "sizes", dim=0)
    dim = given["dim"]
    return call.add(
        "split", given["input"], sizes=tuple(part.shape[dim] for part in call.result), dim=dim
    )


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
    return _slice(
        call, given["input"], given["dim"], slice(given["start"], given["end"], given["step"])
    )


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
    return call.recorder.add(
        "slice", [name], {"dim": axis, "start": start, "end": end, "step": step}
    )


@reads("roll", "flip")
def _rolled(call: Call) -> str:
    names = ("shifts", "dims") if call.name == "roll" else ("dims",)
    given = call.bound("input", *names)
    args: dict[str, Any] = {name: _as_tuple(given[name]) for name in names}
    return call.add(call.name, given["input"], **args)


def _as_tuple(value: Any) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
