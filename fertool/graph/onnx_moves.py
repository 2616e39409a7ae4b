"""The readers of ONNX operators that move values: shapes, axes, parts, order."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from fertool.graph.onnx_values import (
    Call,
    Constant,
    Draft,
    UnreadableNodeError,
    Value,
    front,
    reads,
)

_MOST_REPEATS = 64


@reads("Identity")
def _identity(call: Call) -> Value:
    return call.value(0)


@reads("Cast", "CastLike")
def _cast(call: Call) -> Value:
    x = call.flow()
    if call.node.op_type == "Cast" and call.attributes["to"] != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(call.attributes["to"]).lower()
        raise UnreadableNodeError(
            f"a step to numbers of the type {kind}; fertool imports float32 models"
        )
    return x


@reads("Dropout")
def _dropout(call: Call) -> Draft:
    if len([name for name in call.node.output if name]) > 1:
        raise UnreadableNodeError("a dropout with its mask")
    ratio = call.optional(1)
    share = call.attributes.get("ratio", 0.5) if ratio is None else ratio.number
    return call.add("dropout", call.flow(), p=share)


@reads("Shape")
def _shape(call: Call) -> Value:
    shape = call.flow().shape[call.attributes.get("start", 0) : call.attributes.get("end")]
    return Constant(np.array(shape, np.int64), of_shape=True)


@reads("Size")
def _size(call: Call) -> Value:
    return Constant(np.array(math.prod(call.flow().shape), np.int64), of_shape=True)


@reads("Flatten")
def _flatten(call: Call) -> Draft:
    x, axis = call.flow(), call.attributes.get("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    if axis == 0:
        raise UnreadableNodeError("it mixes the images of a batch")
    if axis == 1:
        return call.add("flatten", x, start_dim=1)
    return call.add("reshape", x, shape=(-1, math.prod(x.shape[axis:])))


@reads("Reshape")
def _reshape(call: Call) -> Draft:
    x, written = call.flow(), call.constant(1)
    shape = [int(size) for size in written.array.reshape(-1)]
    if call.attributes.get("allowzero") and 0 in shape:
        raise UnreadableNodeError("a shape without values")
    if call.sheet.fixed_batch is not None and not written.of_shape:
        shape = _for_any_batch(call.sheet.batch, call.sheet.fixed_batch, x, shape)
    kept = [
        x.shape[axis] if size == 0 and axis < len(x.shape) else size
        for axis, size in enumerate(shape)
    ]
    known = math.prod(size for size in kept if size != -1)
    resolved = [math.prod(x.shape) // max(known, 1) if size == -1 else size for size in kept]
    last = len(resolved) - 1
    # The last axes in one are written as such, so that the length of each of them may change.
    if 0 < last < len(x.shape) - 1 and resolved == [*x.shape[:last], math.prod(x.shape[last:])]:
        return call.add("flatten", x, start_dim=last)
    return call.add("reshape", x, shape=shape)


def _for_any_batch(batch: int, fixed: int, x: Draft, shape: list[int]) -> list[int]:
    """Return a shape that was written down for `fixed` images as it is for `batch` of them."""
    if x.shape[0] % batch:
        raise UnreadableNodeError("it depends on the number of images in a way that is not known")
    before = [x.shape[0] // batch * fixed, *x.shape[1:]]
    kept = [
        before[axis] if size == 0 and axis < len(before) else size
        for axis, size in enumerate(shape)
    ]
    known = math.prod(size for size in kept if size != -1)
    first = math.prod(before) // max(known, 1) if kept[0] == -1 else kept[0]
    if shape[0] in (0, -1):
        return shape
    if first % fixed:
        raise UnreadableNodeError(f"a shape that does not have the {fixed} images at its front")
    return [first // fixed * batch, *shape[1:]]


@reads("Transpose")
def _transpose(call: Call) -> Draft:
    x = call.flow()
    return call.add(
        "permute", x, dims=call.attributes.get("perm", tuple(reversed(range(len(x.shape)))))
    )


@reads("Squeeze")
def _squeeze(call: Call) -> Draft:
    x, given = call.flow(), call.integers("axes", 1)
    if given is None:
        given = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    axes = tuple(sorted(front(axis, len(x.shape)) for axis in given))
    wrong = [axis for axis in axes if x.shape[axis] != 1]
    if wrong:
        raise UnreadableNodeError(
            f"it removes the axis {wrong[0]}, which has {x.shape[wrong[0]]} entries"
        )
    return call.add("squeeze", x, dim=axes) if axes else x


@reads("Unsqueeze")
def _unsqueeze(call: Call) -> Draft:
    x, given = call.flow(), call.integers("axes", 1) or ()
    rank = len(x.shape) + len(given)
    for axis in sorted(front(axis, rank) for axis in given):
        x = call.add("unsqueeze", x, dim=axis)
    return x


@reads("Concat")
def _concat(call: Call) -> Draft:
    parts = [call.flow(index) for index in range(len(call.inputs)) if call.has(index)]
    axis = front(call.attributes["axis"], len(parts[0].shape))
    if any(part.has_images_along(axis) for part in parts):
        raise UnreadableNodeError("it joins tensors along the axis of the images")
    return call.add("cat", *parts, dim=axis)


@reads("Split")
def _split(call: Call) -> Sequence[Value]:
    x = call.flow()
    axis = call.axis(0, len(x.shape))
    if x.has_images_along(axis):
        raise UnreadableNodeError("it cuts the axis of the images")
    sizes, count = call.integers("split", 1), len(call.node.output)
    if sizes is None:
        part = -(-x.shape[axis] // call.attributes.get("num_outputs", count))
        sizes = (part,) * (count - 1) + (x.shape[axis] - part * (count - 1),)
    parts = call.add("split", x, sizes=sizes, dim=axis)
    return [call.add("getitem", parts, index=index) for index in range(len(sizes))]


@reads("Slice")
def _slice(call: Call) -> Draft:
    x = call.flow()
    starts, ends = call.integers("starts", 1), call.integers("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise UnreadableNodeError("a slice without bounds")
    axes = call.integers("axes", 3) or tuple(range(len(starts)))
    steps = call.integers("steps", 4) or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        x = _cut(call, x, front(axis, len(x.shape)), slice(start, end, step))
    return x


def _cut(call: Call, x: Draft, axis: int, part: slice) -> Draft:
    size = x.shape[axis]
    chosen = _chosen(size, part)
    if len(chosen) == size and chosen.step == 1:
        return x
    if x.has_images_along(axis):
        raise UnreadableNodeError("it takes some of the images of a batch")
    if len(chosen) == size and chosen.step == -1:
        return call.add("flip", x, dims=(axis,))
    if chosen.step < 0 or not chosen:
        raise UnreadableNodeError("a slice from the back, or an empty one")
    return call.add(
        "slice", x, dim=axis, start=chosen.start, end=min(chosen.stop, size), step=chosen.step
    )


def _chosen(size: int, part: slice) -> range:
    """Return the entries that a slice takes; ONNX counts an end before the first as the first, Python from behind."""
    stop = None if part.step < 0 and part.stop < -size else part.stop
    return range(size)[slice(part.start, stop, part.step)]


@reads("Gather")
def _gather(call: Call) -> Draft:
    x, index = call.flow(), call.constant(1).array
    axis = call.axis(0, len(x.shape))
    if x.has_images_along(axis):
        raise UnreadableNodeError("it takes some of the images of a batch")
    if index.ndim == 0:
        return call.add("select", x, dim=axis, index=int(index))
    if index.ndim != 1 or not index.size:
        raise UnreadableNodeError("a choice that has more than one axis")
    places = [front(int(place), x.shape[axis]) for place in index]
    step = places[1] - places[0] if len(places) > 1 else 1
    wanted = list(range(places[0], places[0] + step * len(places), step)) if step else []
    if places != wanted:
        raise UnreadableNodeError("a choice of entries that are not evenly spaced")
    if step < 0 and len(places) != x.shape[axis]:
        raise UnreadableNodeError("a choice of entries from the back")
    return _cut(
        call, x, axis, slice(places[0], places[-1] + step if step > 0 else -x.shape[axis] - 1, step)
    )


@reads("Expand")
def _expand(call: Call) -> Draft:
    x, shape = call.flow(), call.constant(1)
    wanted = np.broadcast_shapes(x.shape, _of_batch(call, x, shape))
    if wanted == x.shape:
        return x
    new = len(wanted) - len(x.shape)
    kept = [None] * new + list(x.shape)
    return call.add(
        "expand", x, shape=tuple(-1 if a == b else b for a, b in zip(kept, wanted, strict=True))
    )


def _of_batch(call: Call, x: Draft, shape: Constant) -> tuple[int, ...]:
    """Return the shape to expand to, with 1 for the axis of the images where the file has their fixed number there."""
    sizes = tuple(int(size) for size in shape.array.reshape(-1))
    fixed = call.sheet.fixed_batch
    if (
        fixed is not None
        and not shape.of_shape
        and len(sizes) == len(x.shape)
        and sizes[0] == fixed
    ):
        return (1, *sizes[1:])
    return sizes


@reads("Tile")
def _tile(call: Call) -> Draft:
    x, counts = call.flow(), call.integers("repeats", 1) or ()
    repeated = [axis for axis, count in enumerate(counts) if count != 1]
    is_small = all(1 <= count <= _MOST_REPEATS for count in counts)
    if len(counts) != len(x.shape) or not is_small or any(map(x.has_images_along, repeated)):
        raise UnreadableNodeError("it repeats images, or something too often")
    for axis in repeated:
        x = call.add("cat", *[x] * counts[axis], dim=axis)
    return x


@reads("DepthToSpace")
def _depth_to_space(call: Call) -> Draft:
    x, block = call.flow(), call.attributes["blocksize"]
    if call.attributes.get("mode", "DCR") == "CRD":
        return call.add("pixel_shuffle", x, upscale_factor=block)
    _, channels, height, width = x.shape
    fewer = channels // (block * block)
    blocks = call.add("reshape", x, shape=(0, block, block, fewer, height, width))
    ordered = call.add("permute", blocks, dims=(0, 3, 4, 1, 5, 2))
    return call.add("reshape", ordered, shape=(0, fewer, height * block, width * block))


@reads("SpaceToDepth")
def _space_to_depth(call: Call) -> Draft:
    x, block = call.flow(), call.attributes["blocksize"]
    _, channels, height, width = x.shape
    blocks = call.add(
        "reshape", x, shape=(0, channels, height // block, block, width // block, block)
    )
    ordered = call.add("permute", blocks, dims=(0, 3, 5, 1, 2, 4))
    return call.add(
        "reshape", ordered, shape=(0, channels * block * block, height // block, width // block)
    )
