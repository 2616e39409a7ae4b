"""Arithmetic on what an ONNX file knows beforehand: shapes mostly, and weights that are laid out anew."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from fertool.graph.onnx_values import UnreadableNodeError

Array = NDArray[Any]
Folder = Callable[[Mapping[str, Any], Sequence[Array]], Array | list[Array]]
"""Computes a node from its attributes and its inputs; an input that is left out is an empty array of type object."""
MOST_GROWN = 1 << 22
"""Entries that a constant may have beyond those of what it was computed from."""


def fold(op: str, attributes: Mapping[str, Any], inputs: Sequence[Array | None]) -> list[Array]:
    """Return the results of a node whose inputs are known.

    Raises UnreadableNodeError for inputs that do not fit, and for results that are far larger than they are.
    """
    given = [np.empty(0, object) if array is None else array for array in inputs]
    folder = _FOLDERS[op]
    try:
        size = _size(op, attributes, given)
        if size > MOST_GROWN + sum(array.size for array in given):
            raise UnreadableNodeError(f"it makes a constant of {size:,} numbers")
        with np.errstate(all="ignore"):
            made = folder(attributes, given)
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError, MemoryError) as error:
        raise UnreadableNodeError(
            f"its constant inputs do not fit: {str(error).partition(chr(10))[0]}"
        ) from None
    results = made if isinstance(made, list) else [made]
    return [np.asarray(result) for result in results]


def can_fold(op: str) -> bool:
    """Whether there is arithmetic on constants for an operator."""
    return op in _FOLDERS


def _size(op: str, attributes: Mapping[str, Any], inputs: Sequence[Array]) -> int:
    """Return how many entries a result will have at most, before anything is allocated."""
    if op == "ConstantOfShape":
        return math.prod(int(size) for size in inputs[0])
    if op == "Expand":
        return math.prod(
            np.broadcast_shapes(inputs[0].shape, tuple(int(size) for size in inputs[1]))
        )
    if op == "Tile":
        return inputs[0].size * math.prod(int(count) for count in inputs[1])
    if op == "Range":
        start, end, step = (float(array) for array in inputs)
        return max(0, math.ceil((end - start) / step))
    if op == "Gather":
        axis = attributes.get("axis", 0)
        return int(inputs[0].size // max(inputs[0].shape[axis], 1) * inputs[1].size)
    if op in _BINARY or op in ("Where", "Pow", "Div", "Mod"):
        return math.prod(np.broadcast_shapes(*(array.shape for array in inputs)))
    return 0


def _gather(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return np.take(inputs[0], inputs[1].astype(np.int64), axis=attributes.get("axis", 0))


def _cast(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return inputs[0].astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _axes(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> tuple[int, ...] | None:
    if "axes" in attributes:
        return tuple(attributes["axes"])
    return (
        tuple(int(axis) for axis in inputs[1].reshape(-1))
        if len(inputs) > 1 and inputs[1].size
        else None
    )


def _unsqueeze(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    axes = _axes(attributes, inputs)
    return np.expand_dims(inputs[0], axes or ())


def _squeeze(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return np.squeeze(inputs[0], _axes(attributes, inputs))


def _reshape(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    shape = [int(size) for size in inputs[1]]
    if not attributes.get("allowzero"):
        shape = [inputs[0].shape[axis] if size == 0 else size for axis, size in enumerate(shape)]
    return inputs[0].reshape(shape)


def _transpose(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return np.transpose(inputs[0], attributes.get("perm"))


def _slice(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    array = inputs[0]
    if "starts" in attributes:
        starts, ends = attributes["starts"], attributes["ends"]
        axes, steps = attributes.get("axes"), None
    else:
        starts, ends = inputs[1], inputs[2]
        axes = inputs[3] if len(inputs) > 3 and inputs[3].size else None
        steps = inputs[4] if len(inputs) > 4 and inputs[4].size else None
    index: list[slice] = [slice(None)] * array.ndim
    for place, (start, end) in enumerate(zip(starts, ends, strict=True)):
        axis = place if axes is None else int(axes[place])
        step = 1 if steps is None else int(steps[place])
        stop = None if step < 0 and int(end) < -array.shape[axis] else int(end)
        index[axis] = slice(int(start), stop, step)
    return array[tuple(index)]


def _concat(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return np.concatenate(list(inputs), axis=attributes["axis"])


def _split(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> list[Array]:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split", inputs[1] if len(inputs) > 1 else None)
    if sizes is None:
        return list(np.array_split(inputs[0], attributes["num_outputs"], axis))
    return list(np.split(inputs[0], np.cumsum(np.asarray(sizes, np.int64))[:-1], axis))


def _divide(_attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    quotient = np.true_divide(*inputs)
    if np.issubdtype(inputs[0].dtype, np.integer):
        return np.trunc(quotient).astype(inputs[0].dtype)
    return np.asarray(quotient, inputs[0].dtype)


def _modulo(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return np.asarray(np.fmod(*inputs) if attributes.get("fmod") else np.mod(*inputs))


def _constant_of_shape(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else numpy_helper.to_array(value).reshape(-1)
    return np.full([int(size) for size in inputs[0]], fill[0], fill.dtype)


def _expand(_attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    shape = tuple(int(size) for size in inputs[1])
    return np.array(np.broadcast_to(inputs[0], np.broadcast_shapes(inputs[0].shape, shape)))


def _range(_attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    start, end, step = (array.item() for array in inputs[:3])
    return np.asarray(np.arange(start, end, step), inputs[0].dtype)


def _same(_attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    return inputs[0]


def _clip(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    low = inputs[1] if len(inputs) > 1 and inputs[1].size else attributes.get("min")
    high = inputs[2] if len(inputs) > 2 and inputs[2].size else attributes.get("max")
    return np.clip(inputs[0], low, high).astype(inputs[0].dtype)


def _standardized(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
    """Return weights with the mean and the deviation that are given, which some networks compute anew in each pass."""
    if not attributes.get("training_mode"):
        raise ValueError("a batch norm of constants")
    x, scale, shift = inputs[:3]
    axes = (0, *range(2, x.ndim))
    per_channel = (1, -1, *[1] * (x.ndim - 2))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    standard = (x - mean) / np.sqrt(variance + np.float32(attributes.get("epsilon", 1e-5)))
    return np.asarray(standard * scale.reshape(per_channel) + shift.reshape(per_channel), x.dtype)


def _each(function: Callable[..., Any]) -> Folder:
    """Return the folder of a function that works entry by entry and keeps the type."""
    return lambda _, inputs: np.asarray(function(inputs[0])).astype(inputs[0].dtype)


def _pair(function: Callable[..., Any]) -> Folder:
    return lambda _, inputs: np.asarray(function(inputs[0], inputs[1]))


def _reduction(function: Callable[..., Any]) -> Folder:
    def reduce(attributes: Mapping[str, Any], inputs: Sequence[Array]) -> Array:
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(
            function(inputs[0], axis=_axes(attributes, inputs), keepdims=keep)
        ).astype(inputs[0].dtype)

    return reduce


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
_FOLDERS: Mapping[str, Folder] = {
    **{op: _pair(function) for op, function in _BINARY.items()},
    **{op: _same for op in ("Identity", "Dropout")},
    "Gather": _gather,
    "Cast": _cast,
    "Unsqueeze": _unsqueeze,
    "Squeeze": _squeeze,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Slice": _slice,
    "Concat": _concat,
    "Split": _split,
    "Div": _divide,
    "Mod": _modulo,
    "Clip": _clip,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Tile": lambda _, inputs: np.tile(inputs[0], [int(count) for count in inputs[1]]),
    "Range": _range,
    "Pow": lambda _, inputs: np.power(inputs[0], inputs[1]).astype(inputs[0].dtype),
    "Where": lambda _, inputs: np.where(*inputs),
    "Not": lambda _, inputs: np.logical_not(inputs[0]),
    "Shape": lambda a, inputs: np.array(
        inputs[0].shape[a.get("start", 0) : a.get("end")], np.int64
    ),
    "Size": lambda _, inputs: np.array(inputs[0].size, np.int64),
    "Floor": _each(np.floor),
    "Ceil": _each(np.ceil),
    "Round": _each(np.round),
    "Sqrt": _each(np.sqrt),
    "Exp": _each(np.exp),
    "Log": _each(np.log),
    "Sin": _each(np.sin),
    "Cos": _each(np.cos),
    "Abs": _each(np.abs),
    "Neg": _each(np.negative),
    "Reciprocal": _each(np.reciprocal),
    "ReduceMean": _reduction(np.mean),
    "BatchNormalization": _standardized,
    "CumSum": lambda _, inputs: np.cumsum(
        inputs[0], axis=int(inputs[1].item()), dtype=inputs[0].dtype
    ),
    "ReduceProd": _reduction(np.prod),
    "ReduceSum": _reduction(np.sum),
    "ReduceMax": _reduction(np.max),
    "ReduceMin": _reduction(np.min),
}
NAME_KEEPING = frozenset({"Identity", "Transpose", "Unsqueeze", "Squeeze", "Reshape", "Cast"})
"""What lays a weight out anew, which keeps its name."""
