"""Converters of ONNX operators that move values and compute none: shapes, axes, slices, joins."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx

from fertool.graph.onnx_builder import (
    Constant,
    Draft,
    OnnxCall,
    UnsupportedNodeError,
    Value,
    converts,
    int_tuple,
    normalize_axis,
    python_slice,
)

_MAX_REPEATS = 64


@converts("Identity")
def _convert_identity(call: OnnxCall) -> Value:
    return call.value(0)


@converts("Cast", "CastLike")
def _convert_cast(call: OnnxCall) -> Value:
    x = call.draft()
    if call.node.op_type == "Cast" and call.attributes["to"] != onnx.TensorProto.FLOAT:
        kind = onnx.TensorProto.DataType.Name(call.attributes["to"]).lower()
        raise UnsupportedNodeError(
            f"a cast to numbers of the type {kind}; fertool imports float32 models"
        )
    return x


@converts("Dropout")
def _convert_dropout(call: OnnxCall) -> Draft:
    if call.output_count() > 1:
        raise UnsupportedNodeError("a dropout with its mask")

    given = call.optional_constant(1)
    ratio = call.attributes.get("ratio", 0.5)
    if given is not None:
        ratio = given.number
    return call.add("dropout", call.draft(), p=ratio)


@converts("Shape")
def _convert_shape(call: OnnxCall) -> Value:
    start, end = call.attributes.get("start", 0), call.attributes.get("end")
    shape = call.draft().shape[start:end]
    return Constant(np.array(shape, np.int64), of_shape=True)


@converts("Size")
def _convert_size(call: OnnxCall) -> Value:
    size = math.prod(call.draft().shape)
    return Constant(np.array(size, np.int64), of_shape=True)


@converts("Flatten")
def _convert_flatten(call: OnnxCall) -> Draft:
    x = call.draft()
    axis = call.attributes.get("axis", 1)
    if axis < 0:
        axis += len(x.shape)
    if axis == 0:
        raise UnsupportedNodeError("it mixes the images of a batch")
    if axis == 1:
        return call.add("flatten", x, start_dim=1)
    # ONNX flattens what is before the axis as well, and always to a matrix.
    return call.add("reshape", x, shape=(-1, math.prod(x.shape[axis:])))


@converts("Reshape")
def _convert_reshape(call: OnnxCall) -> Draft:
    x = call.draft()
    target = call.constant(1)
    shape = list(int_tuple(target.array))
    if call.attributes.get("allowzero") and 0 in shape:
        raise UnsupportedNodeError("a shape without values")

    fixed_batch = call.builder.fixed_batch
    # A shape computed from other shapes already has the current batch.
    if fixed_batch is not None and not target.of_shape:
        shape = _scale_batch(call.builder.batch, fixed_batch, x, shape)

    resolved = _resolve_shape(shape, x.shape)
    last = len(resolved) - 1
    flattened = [*x.shape[:last], math.prod(x.shape[last:])]
    # Written as `flatten`, so that surgery may change the sizes of the axes that become one.
    if 0 < last < len(x.shape) - 1 and resolved == flattened:
        return call.add("flatten", x, start_dim=last)
    return call.add("reshape", x, shape=shape)


def _resolve_shape(shape: Sequence[int], source: Sequence[int]) -> list[int]:
    """Return the target of a reshape without 0, which copies a size, and without -1."""
    resolved = list(shape)
    for axis, size in enumerate(source[: len(shape)]):
        if resolved[axis] == 0:
            resolved[axis] = size

    if -1 in resolved:
        # -1 is one factor of the product of all sizes.
        known = -math.prod(resolved)
        # A size of 0 is an error that the operator table reports; it must not divide here.
        resolved[resolved.index(-1)] = math.prod(source) // max(known, 1)
    return resolved


def _scale_batch(batch: int, fixed_batch: int, x: Draft, shape: list[int]) -> list[int]:
    """Return a shape that was written for `fixed_batch` images as it is for `batch` images."""
    if x.shape[0] % batch:
        raise UnsupportedNodeError("it depends on the number of images in a way that is not known")

    if shape[0] in (0, -1):
        return shape
    if shape[0] % fixed_batch:
        raise UnsupportedNodeError(
            f"a shape that does not begin with the axis of the {fixed_batch} images"
        )
    return [shape[0] // fixed_batch * batch, *shape[1:]]


@converts("Transpose")
def _convert_transpose(call: OnnxCall) -> Draft:
    x = call.draft()
    backwards = tuple(reversed(range(len(x.shape))))
    return call.add("permute", x, dims=call.attributes.get("perm", backwards))


@converts("Squeeze")
def _convert_squeeze(call: OnnxCall) -> Draft:
    x = call.draft()
    given = call.integers("axes", 1)
    if given is None:
        given = tuple(axis for axis, size in enumerate(x.shape) if size == 1)
    if not given:
        return x

    axes = _sorted_axes(given, len(x.shape))
    for axis in axes:
        if x.shape[axis] != 1:
            raise UnsupportedNodeError(
                f"it removes the axis {axis}, which has {x.shape[axis]} entries"
            )
    return call.add("squeeze", x, dim=axes)


def _sorted_axes(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Return axes counted from the front, in ascending order."""
    return tuple(sorted(normalize_axis(axis, rank) for axis in axes))


@converts("Unsqueeze")
def _convert_unsqueeze(call: OnnxCall) -> Draft:
    x = call.draft()
    given = call.integers("axes", 1) or ()
    # Axes are those of the result, so that each new one has its place only after those before it.
    rank = len(x.shape) + len(given)
    for axis in _sorted_axes(given, rank):
        x = call.add("unsqueeze", x, dim=axis)
    return x


@converts("Concat")
def _convert_concat(call: OnnxCall) -> Draft:
    parts: list[Draft] = []
    for index in range(len(call.inputs)):
        if call.has_input(index):
            parts.append(call.draft(index))
    axis = normalize_axis(call.attributes["axis"], len(parts[0].shape))
    if any(part.is_batch_axis(axis) for part in parts):
        raise UnsupportedNodeError("it joins tensors along the axis of the images")
    return call.add("cat", *parts, dim=axis)


@converts("Split")
def _convert_split(call: OnnxCall) -> Sequence[Value]:
    x = call.draft()
    axis = call.axis(0, len(x.shape))
    if x.is_batch_axis(axis):
        raise UnsupportedNodeError("it splits the axis of the images")

    sizes = call.integers("split", 1)
    count = len(call.node.output)
    if sizes is None:
        # Equal parts, rounded up by the double negation; the last one has what is left.
        part = -(-x.shape[axis] // call.attributes.get("num_outputs", count))
        rest = x.shape[axis] - part * (count - 1)
        sizes = (part,) * (count - 1) + (rest,)
    parts = call.add("split", x, sizes=sizes, dim=axis)
    return [call.add("getitem", parts, index=index) for index in range(len(sizes))]


@converts("Slice")
def _convert_slice(call: OnnxCall) -> Draft:
    x = call.draft()
    starts, ends = call.integers("starts", 1), call.integers("ends", 2)
    if starts is None or ends is None or len(starts) != len(ends):
        raise UnsupportedNodeError("a slice without bounds")

    axes = call.integers("axes", 3) or tuple(range(len(starts)))
    steps = call.integers("steps", 4) or (1,) * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = normalize_axis(axis, len(x.shape))
        x = _add_slice(call, x, axis, python_slice(start, end, step, x.shape[axis]))
    return x


def _add_slice(call: OnnxCall, x: Draft, axis: int, part: slice) -> Draft:
    size = x.shape[axis]
    selected = range(size)[part]
    is_whole = len(selected) == size
    # Before the axis is checked: a slice of all images is none.
    if is_whole and selected.step == 1:
        return x
    if x.is_batch_axis(axis):
        raise UnsupportedNodeError("it takes some of the images of a batch")
    if is_whole and selected.step == -1:
        return call.add("flip", x, dims=(axis,))
    if selected.step < 0 or not selected:
        raise UnsupportedNodeError("a slice from the back, or an empty one")

    end = min(selected.stop, size)
    return call.add("slice", x, dim=axis, start=selected.start, end=end, step=selected.step)


@converts("Gather")
def _convert_gather(call: OnnxCall) -> Draft:
    """Convert a gather with constant indices: one index is a select, a regular row a slice."""
    x = call.draft()
    indices = call.constant(1).array
    axis = call.axis(0, len(x.shape))
    if x.is_batch_axis(axis):
        raise UnsupportedNodeError("it takes some of the images of a batch")
    if indices.ndim == 0:
        return call.add("select", x, dim=axis, index=int(indices))
    if indices.ndim != 1 or not indices.size:
        raise UnsupportedNodeError("a choice that has more than one axis")

    size = x.shape[axis]
    return _add_slice(call, x, axis, _as_slice(indices.tolist(), size))


def _as_slice(indices: list[int], size: int) -> slice:
    """Return a row of indices as a slice; raises UnsupportedNodeError where it is none."""
    positions = [normalize_axis(index, size) for index in indices]
    first, last = positions[0], positions[-1]
    step = 1
    if len(positions) > 1:
        step = positions[1] - first
    if step == 0 or positions != list(range(first, first + step * len(positions), step)):
        raise UnsupportedNodeError("a choice of entries that are not evenly spaced")

    if step > 0:
        return slice(first, last + step, step)
    # Backwards only the whole axis, which is a flip.
    if len(positions) != size:
        raise UnsupportedNodeError("a choice of entries from the back")
    return slice(first, None, step)


@converts("Expand")
def _convert_expand(call: OnnxCall) -> Draft:
    x = call.draft()
    target = _without_fixed_batch(call, x, call.constant(1))
    shape = np.broadcast_shapes(x.shape, target)
    if shape == x.shape:
        return x

    new_axes = len(shape) - len(x.shape)
    # -1 keeps the size of an axis, which for that of the images is any number.
    sizes = list(shape)
    for axis, size in enumerate(x.shape, start=new_axes):
        if size == sizes[axis]:
            sizes[axis] = -1
    return call.add("expand", x, shape=tuple(sizes))


def _without_fixed_batch(call: OnnxCall, x: Draft, target: Constant) -> tuple[int, ...]:
    """Return the shape to expand to, with 1 in place of the number of images of the file."""
    sizes = int_tuple(target.array)
    fixed_batch = call.builder.fixed_batch
    if fixed_batch is None or target.of_shape:
        return sizes
    if len(sizes) == len(x.shape) and sizes[0] == fixed_batch:
        return (1, *sizes[1:])
    return sizes


@converts("Tile")
def _convert_tile(call: OnnxCall) -> Draft:
    """Convert repetitions of whole axes, each of which is a concatenation with itself."""
    x = call.draft()
    counts = call.integers("repeats", 1) or ()
    if len(counts) != len(x.shape):
        raise UnsupportedNodeError(f"it has {len(counts)} repeats for {len(x.shape)} axes")

    for axis, count in enumerate(counts):
        # Repeating once changes nothing.
        if count == 1:
            continue
        # Each repetition is an input of the concatenation, of which a node has a limited number.
        if not 1 < count <= _MAX_REPEATS or x.is_batch_axis(axis):
            raise UnsupportedNodeError("it repeats images, or something too often")
        copies = [x] * count
        x = call.add("cat", *copies, dim=axis)
    return x


@converts("DepthToSpace")
def _convert_depth_to_space(call: OnnxCall) -> Draft:
    x = call.draft()
    block = call.attributes["blocksize"]
    if call.attributes.get("mode", "DCR") == "CRD":
        return call.add("pixel_shuffle", x, upscale_factor=block)

    # In the mode DCR the blocks come before the channels; the steps of ONNX's definition.
    _, channels, height, width = x.shape
    fewer = channels // (block * block)
    blocks = call.add("reshape", x, shape=(0, block, block, fewer, height, width))
    ordered = call.add("permute", blocks, dims=(0, 3, 4, 1, 5, 2))
    return call.add("reshape", ordered, shape=(0, fewer, height * block, width * block))


@converts("SpaceToDepth")
def _convert_space_to_depth(call: OnnxCall) -> Draft:
    # Not `pixel_unshuffle`, which orders the channels before the blocks.
    x = call.draft()
    block = call.attributes["blocksize"]
    _, channels, height, width = x.shape
    rows, columns = height // block, width // block
    more = channels * block * block
    blocks = call.add("reshape", x, shape=(0, channels, rows, block, columns, block))
    ordered = call.add("permute", blocks, dims=(0, 3, 5, 1, 2, 4))
    return call.add("reshape", ordered, shape=(0, more, rows, columns))
