"""The scales and biases of an INT8 graph, stored once and small: of a small network they are a quarter of the file."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor, np_dtype_to_tensor_dtype

from fertool.export.compact import Array, constants

_SMALLER = (
    (np.dtype(np.float32), np.dtype(np.float16)),
    (np.dtype(np.int32), np.dtype(np.int8)),
    (np.dtype(np.int32), np.dtype(np.int16)),
)
"""What a type may become, the smallest first."""


def scales_packed(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph with fewer bytes of constants; runtimes unfold them once, when they load the file.

    A bias scale [out] that is input scale x weight scale to the last bit becomes a Mul of the two. Scales that float16
    holds exactly become parts of one such constant behind a Cast and a Split, and so do the biases of layers that int8
    holds, and those that int16 holds. Layers of one channel keep theirs. A float graph stays as it is.
    """
    values = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in constants(model)}
    nodes = _with_multiplied_bias_scales(model.graph.node, values)
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:]
    read = dict.fromkeys(
        name for node in nodes if node.op_type == "DequantizeLinear" for name in node.input
    )
    vectors = {name: values[name] for name in read if name in values and _worth_it(values[name])}
    merged: set[str] = set()
    for dtype, smaller in _SMALLER:
        rest = {
            n: vector for n, vector in vectors.items() if vector.dtype == dtype and n not in merged
        }
        fits = {
            n: vector
            for n, vector in rest.items()
            if np.array_equal(vector.astype(smaller), vector)
        }
        if fits:
            merged |= set(fits)
            stored, *unfolding = _unfolded(fits, smaller)
            result.graph.initializer.extend(stored)
            result.graph.node.extend(unfolding)
    result.graph.initializer.extend(
        tensor for tensor in model.graph.initializer if tensor.name not in merged
    )
    # What a Split makes, no Constant need make.
    result.graph.node.extend(node for node in nodes if merged.isdisjoint(node.output))
    return result


def _worth_it(vector: Array) -> bool:
    """Whether a constant is a vector of several values; of one alone OpenVINO wants to see that it is one."""
    return vector.ndim == 1 and vector.size > 1


def _with_multiplied_bias_scales(
    nodes: Iterable[NodeProto], values: dict[str, Array]
) -> list[NodeProto]:
    scale_of = {
        node.output[0]: node.input[1] for node in nodes if node.op_type == "DequantizeLinear"
    }
    factors: dict[str, list[str]] = {}
    for node in nodes:
        scales = [scale_of.get(value, "") for value in node.input]
        if len(scales) == 3 and all(scale in values for scale in scales):
            source, weight, bias = (values[scale] for scale in scales)
            if _worth_it(bias) and np.array_equal(source * weight, bias):
                factors[node.input[2]] = scales[:2]
    result = []
    for original in nodes:
        node = NodeProto()
        node.CopyFrom(original)
        if node.output[0] in factors:
            node.input[1] = f"{node.output[0]}/scale"
            result.append(make_node("Mul", factors[node.output[0]], [node.input[1]]))
        result.append(node)
    return result


def _unfolded(
    parts: dict[str, Array], smaller: np.dtype
) -> tuple[list[TensorProto], NodeProto, NodeProto]:
    """Return the constants that hold `parts` as one, in the `smaller` type, and the two nodes that make them again."""
    name = f"all/{smaller}"
    whole = onnx.numpy_helper.from_array(np.concatenate([*parts.values()]).astype(smaller), name)
    # In this form a size takes a byte or two, as raw data eight.
    sizes = make_tensor(
        f"{name}/sizes", TensorProto.INT64, [len(parts)], [len(part) for part in parts.values()]
    )
    wide = np_dtype_to_tensor_dtype(next(iter(parts.values())).dtype)
    cast = make_node("Cast", [name], [f"{name}/cast"], to=wide)
    return [whole, sizes], cast, make_node("Split", [f"{name}/cast", sizes.name], list(parts))
