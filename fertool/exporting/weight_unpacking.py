"""Integer weights of layers that compute with floats: unpacked once, when a runtime loads the file.

A DequantizeLinear of a constant is one half of an integer operator to a runtime: where the other
half is missing, ONNX Runtime keeps it and runs it for every image. A Cast and a Mul of constants it
folds into a float weight, with which the layer is the one of a float network.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor
from onnx.numpy_helper import from_array

from fertool.exporting.graph_editor import get_attribute
from fertool.exporting.graph_parts import (
    Array,
    constant_arrays,
    copy_node,
    copy_with_nodes,
    find_readers,
)


def unpack_weights(model: ModelProto) -> ModelProto:
    """Return the same graph with a Cast and a Mul for the weights that are read as floats.

    They are those whose DequantizeLinear counts its axis from the end, as `onnx_modules` writes
    it. The bias of such a layer follows its weight: its unit is a power of two in the scale of the
    weight, so that the file holds one scale for both.
    """
    arrays = constant_arrays(model)
    weights = _float_weights(model)
    if not weights:
        return model
    biases = _biases_of(model, weights)
    nodes: list[NodeProto] = []
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        value = node.output[0]
        if value in weights:
            rank = -get_attribute(node, "axis", 0)
            nodes += _unpack_weight(node, rank, tensors)
        elif value in biases:
            nodes += _unpack_bias(node, biases[value], arrays, tensors)
        else:
            nodes.append(copy_node(node))
    return copy_with_nodes(model, nodes, tensors)


def _float_weights(model: ModelProto) -> dict[str, NodeProto]:
    """Return the DequantizeLinear nodes of these weights by the value that they compute."""
    found = {}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and get_attribute(node, "axis", 1) < 0:
            found[node.output[0]] = node
    return found


def _biases_of(model: ModelProto, weights: Mapping[str, NodeProto]) -> dict[str, NodeProto]:
    """Return by dequantized bias the DequantizeLinear of the weight of its layer."""
    readers = find_readers(model.graph.node)
    biases = {}
    for value, node in weights.items():
        for layer in readers[value]:
            # A weight that torch's exporter transposes is read by a Transpose, which has no bias.
            if len(layer.input) == 3:
                biases[layer.input[2]] = node
    return biases


def _unpack_weight(node: NodeProto, rank: int, tensors: list[TensorProto]) -> list[NodeProto]:
    """Return the nodes that compute a weight, with one scale for each of its first axis."""
    integers, scale, *_ = node.input
    (value,) = node.output
    shape = make_tensor(f"{value}/shape", TensorProto.INT64, [rank], [-1] + [1] * (rank - 1))
    tensors.append(shape)
    return [
        make_node("Cast", [integers], [f"{value}/cast"], to=TensorProto.FLOAT),
        make_node("Reshape", [scale, shape.name], [f"{value}/scale"]),
        make_node("Mul", [f"{value}/cast", f"{value}/scale"], [value]),
    ]


def _unpack_bias(
    node: NodeProto,
    weight: NodeProto,
    arrays: Mapping[str, Array],
    tensors: list[TensorProto],
) -> list[NodeProto]:
    """Return the nodes that compute a bias, from the scale of the weight where that is exact."""
    integers, scale, *_ = node.input
    (value,) = node.output
    nodes = [make_node("Cast", [integers], [f"{value}/cast"], to=TensorProto.FLOAT)]
    unit = _ratio(arrays.get(scale), arrays.get(weight.input[1]))
    if unit is not None:
        tensors.append(from_array(unit, f"{value}/unit"))
        nodes.append(make_node("Mul", [weight.input[1], f"{value}/unit"], [f"{value}/scale"]))
        scale = f"{value}/scale"
    nodes.append(make_node("Mul", [f"{value}/cast", scale], [value]))
    return nodes


def _ratio(scale: Array | None, weight_scale: Array | None) -> Array | None:
    """Return the factor, float32 [], of two vectors of scales; None where there is no exact one."""
    if scale is None or weight_scale is None:
        return None
    factor = np.asarray(scale.flat[0] / weight_scale.flat[0], np.float32)
    return factor if np.array_equal(weight_scale * factor, scale) else None
