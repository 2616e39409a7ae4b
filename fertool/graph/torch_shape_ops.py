"""Converters of PyTorch calls that move values and compute none: views, slices, joins."""

from __future__ import annotations

from typing import Any

import torch

from fertool.graph.torch_calls import TorchCall, UnsupportedCallError, as_tuple, converts


@converts("view", "reshape", "_unsafe_view", "view_as", "unflatten", "reshape_as")
def _convert_reshape(call: TorchCall) -> str:
    x = call.args[0]
    if len(call.args) > 1 and isinstance(call.args[1], torch.dtype):
        raise UnsupportedCallError("a view as another type")
    # The sizes of this run: which of them depend on the batch shows when both runs are compared.
    return call.add("reshape", x, shape=tuple(call.result.shape))


@converts("expand", "expand_as")
def _convert_expand(call: TorchCall) -> str:
    x = call.args[0]
    shape = list(call.result.shape)
    new_axes = len(shape) - x.dim()
    # -1 keeps the size of an axis.
    for axis, size in enumerate(x.shape, start=new_axes):
        if shape[axis] == size:
            shape[axis] = -1
    return call.add("expand", x, shape=tuple(shape))


@converts("permute")
def _convert_permute(call: TorchCall) -> str:
    dims = call.kwargs.get("dims", call.args[1:])
    # The method takes the axes one by one as well as in a tuple.
    if isinstance(dims[0], tuple | list):
        dims = dims[0]
    return call.add("permute", call.args[0], dims=tuple(dims))


@converts("get T", "get mT", "t")
def _convert_matrix_transpose(call: TorchCall) -> str:
    return call.add("transpose", call.args[0], dim0=-2, dim1=-1)


@converts("transpose", "swapaxes", "swapdims")
def _convert_transpose(call: TorchCall) -> str:
    given = call.bind("input", "dim0", "dim1")
    return call.add("transpose", call.args[0], dim0=given["dim0"], dim1=given["dim1"])


@converts("movedim", "moveaxis")
def _convert_movedim(call: TorchCall) -> str:
    given = call.bind("input", "source", "destination")
    x = given["input"]
    rank = x.dim()
    order = list(range(rank))
    moves: list[tuple[int, int]] = []
    sources, targets = as_tuple(given["source"]), as_tuple(given["destination"])
    for source, target in zip(sources, targets, strict=True):
        moves.append((target % rank, source % rank))
        order.remove(source % rank)

    # In ascending order, so that an insertion does not shift those before it.
    for target, source in sorted(moves):
        order.insert(target, source)
    return call.add("permute", x, dims=tuple(order))


@converts("squeeze")
def _convert_squeeze(call: TorchCall) -> str:
    given = call.bind("input", dim=None)
    x, dims = given["input"], given["dim"]
    if dims is None:
        dims = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    return call.add("squeeze", x, dim=as_tuple(dims))


@converts("cat", "concat", "concatenate")
def _convert_cat(call: TorchCall) -> str:
    return _add_join(call, "cat")


@converts("stack")
def _convert_stack(call: TorchCall) -> str:
    return _add_join(call, "stack")


def _add_join(call: TorchCall, op: str) -> str:
    given = call.bind("tensors", dim=0)
    # NumPy's name for the axis is accepted by PyTorch, too.
    return call.add(op, *given["tensors"], dim=given.get("axis", given["dim"]))


@converts("chunk")
def _convert_chunk(call: TorchCall) -> str:
    given = call.bind("input", "chunks", dim=0)
    return call.add("chunk", given["input"], dim=given["dim"], chunks=given["chunks"])


@converts("unbind")
def _convert_unbind(call: TorchCall) -> str:
    given = call.bind("input", dim=0)
    return call.add("unbind", given["input"], dim=given["dim"])


@converts("split", "split_with_sizes", "tensor_split", "unsafe_split")
def _convert_split(call: TorchCall) -> str:
    given = call.bind("input", "sizes", dim=0)
    dim = given["dim"]
    # Of the results, since arguments are one size, several sizes, or bounds.
    sizes = tuple(part.shape[dim] for part in call.result)
    return call.add("split", given["input"], sizes=sizes, dim=dim)


@converts("select")
def _convert_select(call: TorchCall) -> str:
    given = call.bind("input", "dim", "index")
    return call.add("select", given["input"], dim=given["dim"], index=given["index"])


@converts("slice")
def _convert_slice(call: TorchCall) -> str:
    given = call.bind("input", dim=0, start=None, end=None, step=1)
    x, dim = given["input"], given["dim"]
    part = slice(given["start"], given["end"], given["step"])
    return _add_slice(call, call.recorder.source(x), dim, part, x.shape[dim])


@converts("narrow")
def _convert_narrow(call: TorchCall) -> str:
    given = call.bind("input", "dim", "start", "length")
    x, dim, start = given["input"], given["dim"], given["start"]
    part = slice(start, start + given["length"])
    return _add_slice(call, call.recorder.source(x), dim, part, x.shape[dim])


@converts("getitem")
def _convert_getitem(call: TorchCall) -> str:
    """Convert basic indexing, entry by entry: None, an integer or a slice for each axis."""
    x, index = call.args
    if not isinstance(index, tuple):
        index = (index,)
    entries = _without_ellipsis(index, x.dim())
    name = call.recorder.source(x)
    sizes = list(x.shape)
    axis = 0
    for entry in entries:
        if entry is None:
            name = call.recorder.add("unsqueeze", [name], {"dim": axis})
            sizes.insert(axis, 1)
        elif isinstance(entry, bool) or not isinstance(entry, int | slice):
            raise UnsupportedCallError("indexing by a tensor")
        elif isinstance(entry, int):
            name = call.recorder.add("select", [name], {"dim": axis, "index": entry})
            # The axis is gone, so that the next entry is for the same number again.
            sizes.pop(axis)
            continue
        elif entry != slice(None):
            name = _add_slice(call, name, axis, entry, sizes[axis])
        axis += 1
    return name


def _without_ellipsis(entries: tuple[Any, ...], rank: int) -> tuple[Any, ...]:
    """Return the entries of an index with whole slices in place of an ellipsis."""
    # By identity: `in` and `index` would compare tensors, which have no truth value.
    for position, entry in enumerate(entries):
        if entry is Ellipsis:
            indexed_axes = sum(other is not None for other in entries) - 1
            whole = (slice(None),) * (rank - indexed_axes)
            return (*entries[:position], *whole, *entries[position + 1 :])
    return entries


def _add_slice(call: TorchCall, name: str, axis: int, part: slice, size: int) -> str:
    start, end, step = part.indices(size)
    if (start, end, step) == (0, size, 1):
        return name
    args = {"dim": axis, "start": start, "end": end, "step": step}
    return call.recorder.add("slice", [name], args)


@converts("roll")
def _convert_roll(call: TorchCall) -> str:
    given = call.bind("input", "shifts", "dims")
    shifts, dims = as_tuple(given["shifts"]), as_tuple(given["dims"])
    return call.add("roll", given["input"], shifts=shifts, dims=dims)


@converts("flip")
def _convert_flip(call: TorchCall) -> str:
    given = call.bind("input", "dims")
    return call.add("flip", given["input"], dims=as_tuple(given["dims"]))
