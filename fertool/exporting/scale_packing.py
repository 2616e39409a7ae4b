"""The scales and biases of an INT8 graph, stored once and in the narrowest type that holds them.

Of a small network they are a quarter of the file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor, np_dtype_to_tensor_dtype

from fertool.exporting.graph_parts import (
    Array,
    constant_arrays,
    copy_node,
    copy_with_nodes,
    without_constants,
)

_FLOAT32, _FLOAT16 = np.dtype(np.float32), np.dtype(np.float16)
_INT32, _INT16, _INT8 = np.dtype(np.int32), np.dtype(np.int16), np.dtype(np.int8)
# From a type to a narrower one. int8 is tried before int16, so that each vector gets the narrowest
# that holds it.
_NARROWER_TYPES = ((_FLOAT32, _FLOAT16), (_INT32, _INT8), (_INT32, _INT16))


def pack_scales(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph with fewer bytes of scales and biases.

    Runtimes unpack them once, when they load the file.
    A bias scale [out] that is input scale x weight scale to the last bit becomes a Mul of the two.
    Scales that float16 holds exactly become parts of one such constant behind a Cast and a Split,
    and so do the biases of layers that int8 holds, and those that int16 holds. Layers of one
    channel keep theirs. A float graph is returned unchanged.
    """
    arrays = constant_arrays(model)
    nodes = _multiply_bias_scales(model.graph.node, arrays)
    remaining = _packable_vectors(nodes, arrays)

    packed: set[str] = set()
    constants: list[TensorProto] = []
    unpacking: list[NodeProto] = []
    for wide, narrow in _NARROWER_TYPES:
        fitting = _take_fitting(remaining, wide, narrow)
        if fitting:
            new_constants, new_nodes = _pack_vectors(fitting, narrow)
            constants += new_constants
            unpacking += new_nodes
            packed |= fitting.keys()

    nodes, tensors = without_constants(nodes, model.graph.initializer, packed)
    return copy_with_nodes(model, [*unpacking, *nodes], [*constants, *tensors])


def _take_fitting(vectors: dict[str, Array], wide: np.dtype, narrow: np.dtype) -> dict[str, Array]:
    """Take the vectors of the wide type that the narrow one holds exactly out of `vectors`."""
    fitting = {}
    for name, vector in vectors.items():
        if vector.dtype == wide and np.array_equal(vector.astype(narrow), vector):
            fitting[name] = vector
    for name in fitting:
        del vectors[name]
    return fitting


def _multiply_bias_scales(
    nodes: Iterable[NodeProto], arrays: Mapping[str, Array]
) -> list[NodeProto]:
    """Return copies of the nodes that compute the bias scales which are products of two others."""
    factors = _bias_scale_factors(nodes, arrays)
    result = []
    for original in nodes:
        node = copy_node(original)
        if node.output[0] in factors:
            scale = f"{node.output[0]}/scale"
            result.append(make_node("Mul", factors[node.output[0]], [scale]))
            node.input[1] = scale
        result.append(node)
    return result


def _bias_scale_factors(
    nodes: Iterable[NodeProto], arrays: Mapping[str, Array]
) -> dict[str, list[str]]:
    """Return by dequantized bias the names of input and weight scale whose product is its scale."""
    scale_names = {}
    for node in nodes:
        if node.op_type == "DequantizeLinear":
            scale_names[node.output[0]] = node.input[1]

    factors = {}
    for node in nodes:
        # Integer layers with a bias have three dequantized inputs.
        names = [scale_names.get(value, "") for value in node.input]
        if len(names) != 3 or not arrays.keys() >= set(names):
            continue
        input_scale, weight_scale, bias_scale = names
        product = arrays[input_scale] * arrays[weight_scale]
        # Compared to the last bit: runtimes must compute the very scale that was stored.
        if _is_vector(arrays[bias_scale]) and np.array_equal(product, arrays[bias_scale]):
            factors[node.input[2]] = [input_scale, weight_scale]
    return factors


def _packable_vectors(nodes: Iterable[NodeProto], arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Return the constant vectors of scales and integers, in the order of their first use."""
    vectors: dict[str, Array] = {}
    for node in nodes:
        # The last two are those of layers that compute with floats.
        if node.op_type not in ("DequantizeLinear", "Cast", "Reshape"):
            continue
        for name in node.input:
            if name in arrays and _is_vector(arrays[name]):
                vectors[name] = arrays[name]
    return vectors


def _is_vector(array: Array) -> bool:
    """Return whether a constant is a vector of several values.

    A single value OpenVINO has to see as a constant.
    """
    return array.ndim == 1 and array.size > 1


def _pack_vectors(
    vectors: Mapping[str, Array], narrow: np.dtype
) -> tuple[list[TensorProto], list[NodeProto]]:
    """Return the constants that hold `vectors` as one narrow one, and the nodes that unpack it."""
    name = f"all/{narrow}"
    joined = np.concatenate([*vectors.values()])
    whole = onnx.numpy_helper.from_array(joined.astype(narrow), name)
    # `make_tensor` stores a size as a varint of one or two bytes, raw data as eight.
    lengths = [len(vector) for vector in vectors.values()]
    sizes = make_tensor(f"{name}/sizes", TensorProto.INT64, [len(lengths)], lengths)

    cast_name = f"{name}/cast"
    cast = make_node("Cast", [name], [cast_name], to=np_dtype_to_tensor_dtype(joined.dtype))
    split = make_node("Split", [cast_name, sizes.name], list(vectors))
    return [whole, sizes], [cast, split]
