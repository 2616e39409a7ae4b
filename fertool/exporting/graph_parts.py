"""What several passes over an ONNX graph share: constants, shapes, and copies with other nodes."""

from __future__ import annotations

from collections.abc import Iterable, Set
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

Array = NDArray[Any]


def constant_tensors(model: ModelProto) -> dict[str, TensorProto]:
    """Return the constants of a graph by name: initializers, results of Constants, and copies."""
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}

    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].name == "value":
            tensors[node.output[0]] = node.attribute[0].t
        # The exporter shares equal parameters through Identity nodes.
        elif node.op_type == "Identity" and node.input[0] in tensors:
            tensors[node.output[0]] = tensors[node.input[0]]
    return tensors


def constant_arrays(model: ModelProto) -> dict[str, Array]:
    """Return the values of `constant_tensors`."""
    return {
        name: onnx.numpy_helper.to_array(tensor) for name, tensor in constant_tensors(model).items()
    }


def find_producers(nodes: Iterable[NodeProto]) -> dict[str, NodeProto]:
    """Return by value the node that computes it."""
    producers = {}
    for node in nodes:
        for value in node.output:
            producers[value] = node
    return producers


def find_readers(nodes: Iterable[NodeProto]) -> dict[str, list[NodeProto]]:
    """Return by value the nodes that read it; a value without readers is not among them."""
    readers: dict[str, list[NodeProto]] = {}
    for node in nodes:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    return readers


def output_names(model: ModelProto) -> set[str]:
    """Return the names of the outputs of a graph."""
    return {value.name for value in model.graph.output}


def shape_of(value: ValueInfoProto) -> list[int]:
    """Return the size of each axis of a value, 0 where it is not fixed."""
    return [side.dim_value for side in value.type.tensor_type.shape.dim]


def infer_shapes(model: ModelProto) -> dict[str, list[int]]:
    """Return the shapes of inputs and inner values by name, as far as ONNX can infer them."""
    inferred = onnx.shape_inference.infer_shapes(model).graph
    shapes = {}
    for value in (*inferred.input, *inferred.value_info):
        shapes[value.name] = shape_of(value)
    return shapes


def int64_tensor(name: str, value: int | Iterable[int]) -> TensorProto:
    """Return a constant of 64-bit integers."""
    return onnx.numpy_helper.from_array(np.asarray(value, np.int64), name)


def without_constants(
    nodes: Iterable[NodeProto], tensors: Iterable[TensorProto], names: Set[str]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return those of these nodes and initializers that do not define a constant in `names`."""
    kept_nodes = []
    for node in nodes:
        if names.isdisjoint(node.output):
            kept_nodes.append(node)
    kept_tensors = [tensor for tensor in tensors if tensor.name not in names]
    return kept_nodes, kept_tensors


def copy_with_nodes(
    model: ModelProto,
    nodes: Iterable[NodeProto],
    initializers: Iterable[TensorProto] | None = None,
) -> ModelProto:
    """Return a copy of a model with these nodes, and if given these initializers, not its own."""
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    result.graph.node.extend(nodes)
    if initializers is not None:
        del result.graph.initializer[:]
        result.graph.initializer.extend(initializers)
    return result


def copy_node(node: NodeProto) -> NodeProto:
    """Return a copy of a node, which can be changed without changing its graph."""
    copied = NodeProto()
    copied.CopyFrom(node)
    return copied
