"""Constant folding for ONNX nodes: shape arithmetic mostly, and weights in another layout."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from fertool.graph.onnx_builder import Array, UnsupportedNodeError, int_tuple, python_slice

Attributes = Mapping[str, Any]
Folder = Callable[[Attributes, Sequence[Array]], Array | list[Array]]
"""Computes a node from its attributes and inputs; a missing input is an empty array of objects."""
_MAX_GROWTH = 1 << 22
"""Elements that a constant may have beyond those of the inputs that it is computed from."""


def fold(op: str, attributes: Attributes, inputs: Sequence[Array | None]) -> list[Array]:
    """Return the results of a node whose inputs are known.

    Raises UnsupportedNodeError for inputs that do not fit, and for results that are far larger than
    the inputs.
    """
    given: list[Array] = []
    for array in inputs:
        if array is None:
            array = np.empty(0, object)
        given.append(array)
    folder = _FOLDERS[op]
    try:
        _require_moderate_size(op, attributes, given)
        # Division by zero and overflow give infinities, as they do in a runtime.
        with np.errstate(all="ignore"):
            folded = folder(attributes, given)
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        reason = str(error).partition("\n")[0]
        raise UnsupportedNodeError(f"its constant inputs do not fit: {reason}") from None

    if not isinstance(folded, list):
        folded = [folded]
    # Reductions to a single number return NumPy's scalars.
    return list(map(np.asarray, folded))


def can_fold(op: str) -> bool:
    """Whether constant folding knows an operator."""
    return op in _FOLDERS


def _require_moderate_size(op: str, attributes: Attributes, inputs: Sequence[Array]) -> None:
    """Raise UnsupportedNodeError for a result that is far larger than the inputs.

    Before anything is allocated: a few bytes of a file can ask for any size.
    """
    result_size = _RESULT_SIZES.get(op)
    if result_size is None:
        return
    size = result_size(attributes, inputs)
    if size > _MAX_GROWTH + sum(array.size for array in inputs):
        raise UnsupportedNodeError(f"it makes a constant of {size:,} numbers")


def _constant_of_shape_size(_attributes: Attributes, inputs: Sequence[Array]) -> int:
    return math.prod(int_tuple(inputs[0]))


def _expand_size(_attributes: Attributes, inputs: Sequence[Array]) -> int:
    return math.prod(np.broadcast_shapes(inputs[0].shape, int_tuple(inputs[1])))


def _tile_size(_attributes: Attributes, inputs: Sequence[Array]) -> int:
    return inputs[0].size * math.prod(int_tuple(inputs[1]))


def _range_size(_attributes: Attributes, inputs: Sequence[Array]) -> int:
    start, end, step = map(float, inputs)
    return max(0, math.ceil((end - start) / step))


def _gather_size(attributes: Attributes, inputs: Sequence[Array]) -> int:
    axis_size = inputs[0].shape[attributes.get("axis", 0)]
    return int(inputs[0].size // max(axis_size, 1) * inputs[1].size)


def _broadcast_size(_attributes: Attributes, inputs: Sequence[Array]) -> int:
    shapes = [array.shape for array in inputs]
    return math.prod(np.broadcast_shapes(*shapes))


def _optional(inputs: Sequence[Array], index: int) -> Array | None:
    """Return an optional input, None where it is missing."""
    if index >= len(inputs) or not inputs[index].size:
        return None
    return inputs[index]


def _fold_gather(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.take(inputs[0], inputs[1].astype(np.int64), axis=attributes.get("axis", 0))


def _fold_cast(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _axes(attributes: Attributes, inputs: Sequence[Array]) -> tuple[int, ...] | None:
    """Return axes that are an attribute in older opsets and an input in newer ones."""
    if "axes" in attributes:
        return tuple(attributes["axes"])
    given = _optional(inputs, 1)
    if given is None:
        return None
    return int_tuple(given)


def _fold_unsqueeze(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.expand_dims(inputs[0], _axes(attributes, inputs) or ())


def _fold_squeeze(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.squeeze(inputs[0], _axes(attributes, inputs))


def _fold_reshape(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    source = inputs[0].shape
    shape = list(int_tuple(inputs[1]))
    if not attributes.get("allowzero"):
        # In ONNX 0 copies the size of the input.
        for axis, size in enumerate(shape):
            if size == 0:
                shape[axis] = source[axis]
    return inputs[0].reshape(shape)


def _fold_transpose(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.transpose(inputs[0], attributes.get("perm"))


def _fold_slice(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    array = inputs[0]
    axes: Any
    steps: Any
    # Before opset 10 bounds were attributes, and there were no steps.
    if "starts" in attributes:
        starts, ends = attributes["starts"], attributes["ends"]
        axes, steps = attributes.get("axes"), None
    else:
        starts, ends = inputs[1], inputs[2]
        axes, steps = _optional(inputs, 3), _optional(inputs, 4)

    if axes is None:
        axes = range(len(starts))
    if steps is None:
        steps = [1] * len(starts)

    index: list[slice] = [slice(None)] * array.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = python_slice(int(start), int(end), int(step), array.shape[axis])
    return array[tuple(index)]


def _fold_concat(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.concatenate(list(inputs), axis=attributes["axis"])


def _fold_split(attributes: Attributes, inputs: Sequence[Array]) -> list[Array]:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split")
    if sizes is None and len(inputs) > 1:
        sizes = inputs[1]
    if sizes is None:
        return list(np.array_split(inputs[0], attributes["num_outputs"], axis))

    ends = np.cumsum(np.asarray(sizes, np.int64))
    return list(np.split(inputs[0], ends[:-1], axis))


def _fold_div(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    quotient = np.true_divide(*inputs)
    if np.issubdtype(inputs[0].dtype, np.integer):
        # ONNX divides integers towards zero, NumPy's `//` towards minus infinity.
        return np.trunc(quotient).astype(inputs[0].dtype)
    return np.asarray(quotient, inputs[0].dtype)


def _fold_mod(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    # With `fmod` the remainder has the sign of the dividend, as in C.
    if attributes.get("fmod"):
        return np.asarray(np.fmod(*inputs))
    return np.asarray(np.mod(*inputs))


def _fold_constant_of_shape(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32)
    if value is not None:
        fill = numpy_helper.to_array(value).reshape(-1)
    return np.full(int_tuple(inputs[0]), fill[0], fill.dtype)


def _fold_expand(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    shape = np.broadcast_shapes(inputs[0].shape, int_tuple(inputs[1]))
    # A copy: the budget of the importer counts what is not a view of a weight.
    return np.array(np.broadcast_to(inputs[0], shape))


def _fold_range(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    start, end, step = inputs
    numbers = np.arange(start.item(), end.item(), step.item())
    return np.asarray(numbers, start.dtype)


def _fold_identity(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return inputs[0]


def _fold_clip(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    low, high = _optional(inputs, 1), _optional(inputs, 2)
    if low is None:
        low = attributes.get("min")
    if high is None:
        high = attributes.get("max")
    return np.clip(inputs[0], low, high).astype(inputs[0].dtype)


def _fold_batch_norm(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    """Return standardized weights, which networks with weight standardization compute like this."""
    if not attributes.get("training_mode"):
        raise ValueError("a batch norm of constants")

    x, scale, shift = inputs[:3]
    axes = (0, *range(2, x.ndim))
    per_channel = (1, -1, *[1] * (x.ndim - 2))
    mean = x.mean(axes, keepdims=True)
    variance = x.var(axes, keepdims=True)
    epsilon = np.float32(attributes.get("epsilon", 1e-5))
    standardized = (x - mean) / np.sqrt(variance + epsilon)
    result = standardized * scale.reshape(per_channel) + shift.reshape(per_channel)
    return np.asarray(result, x.dtype)


def _fold_tile(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.tile(inputs[0], int_tuple(inputs[1]))


def _fold_pow(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.power(inputs[0], inputs[1]).astype(inputs[0].dtype)


def _fold_where(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.where(*inputs)


def _fold_not(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.logical_not(inputs[0])


def _fold_shape(attributes: Attributes, inputs: Sequence[Array]) -> Array:
    shape = inputs[0].shape[attributes.get("start", 0) : attributes.get("end")]
    return np.array(shape, np.int64)


def _fold_size(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.array(inputs[0].size, np.int64)


def _fold_cumsum(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
    return np.cumsum(inputs[0], axis=int(inputs[1].item()), dtype=inputs[0].dtype)


def _unary_folder(function: Callable[..., Any]) -> Folder:
    """Return the folder of a function that works element by element and keeps the type."""

    def fold_unary(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
        return np.asarray(function(inputs[0])).astype(inputs[0].dtype)

    return fold_unary


def _binary_folder(function: Callable[..., Any]) -> Folder:
    def fold_binary(_attributes: Attributes, inputs: Sequence[Array]) -> Array:
        return np.asarray(function(inputs[0], inputs[1]))

    return fold_binary


def _reduction_folder(function: Callable[..., Any]) -> Folder:
    def fold_reduction(attributes: Attributes, inputs: Sequence[Array]) -> Array:
        keepdims = bool(attributes.get("keepdims", 1))
        result = function(inputs[0], axis=_axes(attributes, inputs), keepdims=keepdims)
        return np.asarray(result).astype(inputs[0].dtype)

    return fold_reduction


_UNARY: Mapping[str, Callable[..., Any]] = {
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Sqrt": np.sqrt,
    "Exp": np.exp,
    "Log": np.log,
    "Sin": np.sin,
    "Cos": np.cos,
    "Abs": np.abs,
    "Neg": np.negative,
    "Reciprocal": np.reciprocal,
}
_BINARY: Mapping[str, Callable[..., Any]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Max": np.maximum,
    "Min": np.minimum,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
}
_REDUCTIONS: Mapping[str, Callable[..., Any]] = {
    "ReduceMean": np.mean,
    "ReduceProd": np.prod,
    "ReduceSum": np.sum,
    "ReduceMax": np.max,
    "ReduceMin": np.min,
}
_FOLDERS: dict[str, Folder] = {
    "Identity": _fold_identity,
    "Dropout": _fold_identity,
    "Gather": _fold_gather,
    "Cast": _fold_cast,
    "Unsqueeze": _fold_unsqueeze,
    "Squeeze": _fold_squeeze,
    "Reshape": _fold_reshape,
    "Transpose": _fold_transpose,
    "Slice": _fold_slice,
    "Concat": _fold_concat,
    "Split": _fold_split,
    "Div": _fold_div,
    "Mod": _fold_mod,
    "Clip": _fold_clip,
    "ConstantOfShape": _fold_constant_of_shape,
    "Expand": _fold_expand,
    "Tile": _fold_tile,
    "Range": _fold_range,
    "Pow": _fold_pow,
    "Where": _fold_where,
    "Not": _fold_not,
    "Shape": _fold_shape,
    "Size": _fold_size,
    "BatchNormalization": _fold_batch_norm,
    "CumSum": _fold_cumsum,
}
for _op, _function in _UNARY.items():
    _FOLDERS[_op] = _unary_folder(_function)
for _op, _function in _BINARY.items():
    _FOLDERS[_op] = _binary_folder(_function)
for _op, _function in _REDUCTIONS.items():
    _FOLDERS[_op] = _reduction_folder(_function)
_RESULT_SIZES: dict[str, Callable[[Attributes, Sequence[Array]], int]] = {
    "ConstantOfShape": _constant_of_shape_size,
    "Expand": _expand_size,
    "Tile": _tile_size,
    "Range": _range_size,
    "Gather": _gather_size,
}
"""Upper bounds of the elements of a result, for operators whose result can exceed the inputs."""
for _op in (*_BINARY, "Where", "Pow", "Div", "Mod"):
    _RESULT_SIZES[_op] = _broadcast_size
LAYOUT_OPS = frozenset({"Identity", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Cast"})
"""Operators that change the layout or type of a weight, which keeps its name."""
