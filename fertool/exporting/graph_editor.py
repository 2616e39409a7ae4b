"""An ONNX graph that is edited by inserting nodes before and after those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnx.helper import get_attribute_value, make_attribute, make_node

from fertool.exporting.graph_parts import (
    copy_with_nodes,
    find_producers,
    find_readers,
    infer_shapes,
)


class GraphEditor:
    """A copy of a graph whose nodes are found by their values, and others inserted around them.

    `producers` has the node that computes a value, `readers` the nodes that read it, `shapes` the
    sizes of its axes (0 where one is free). They describe the original graph: inserted nodes are in
    none of them.
    """

    def __init__(self, model: ModelProto) -> None:
        self._model = onnx.ModelProto()
        self._model.CopyFrom(model)
        graph = self._model.graph
        self.nodes = list(graph.node)
        self.inputs = {value.name for value in graph.input}

        self.producers = find_producers(self.nodes)
        self.readers = find_readers(self.nodes)
        self.shapes = infer_shapes(model)
        for tensor in graph.initializer:
            self.shapes[tensor.name] = list(tensor.dims)
        # By the identity of a node, which has no name and may share its type and attributes with
        # others.
        self._before: dict[int, list[NodeProto]] = {}
        self._after: dict[int, list[NodeProto]] = {}
        self._name_count = 0

    def integer_parameters(self, convolution: NodeProto) -> list[NodeProto]:
        """Return the DequantizeLinear of weight and bias of an integer convolution.

        Nothing for a float one.
        """
        dequantizers = []
        for value in convolution.input:
            producer = self.producers.get(value)
            if producer is None or producer.op_type != "DequantizeLinear":
                return []
            dequantizers.append(producer)
        return dequantizers[1:]

    def insert_before(
        self,
        reader: NodeProto,
        position: int,
        op_type: str,
        *operands: str | Sequence[int],
        **attributes: Any,
    ) -> None:
        """Insert a node between `reader` and its input at `position`.

        Further inputs of the node are `operands`: names of values, or integers that become a
        constant.
        """
        inputs = [reader.input[position]]
        for operand in operands:
            inputs.append(operand if isinstance(operand, str) else self._constant(operand))
        node = make_node(op_type, inputs, [self._fresh_name()], **attributes)
        self._insert(reader, position, node)

    def concatenate_before(
        self, reader: NodeProto, position: int, copies: Sequence[Sequence[int]], axis: int = 0
    ) -> None:
        """Let `reader` read several copies of its input at `position`, joined along an axis.

        `copies` has for each copy the pads of a Pad node, or nothing where it is not padded.
        """
        source = reader.input[position]
        parts = []
        for pads in copies:
            reader.input[position] = source
            if any(pads):
                self.insert_before(reader, position, "Pad", pads)
            parts.append(reader.input[position])
        node = make_node("Concat", parts, [self._fresh_name()], axis=axis)
        self._insert(reader, position, node)

    def insert_after(
        self, producer: NodeProto, op_type: str, *operands: Sequence[int], **attributes: Any
    ) -> None:
        """Insert a node behind `producer`, and behind what was inserted there already."""
        constants = []
        for values in operands:
            constants.append(self._constant(values))
        inserted = self._after.setdefault(id(producer), [])
        last = inserted[-1] if inserted else producer
        # Readers keep the name that they read; it is the producer's result that gets another one.
        value = last.output[0]
        last.output[0] = self._fresh_name()
        inserted.append(make_node(op_type, [last.output[0], *constants], [value], **attributes))

    def finish(self) -> ModelProto:
        """Return the model with everything that was inserted."""
        nodes = []
        for node in self.nodes:
            nodes += self._before.get(id(node), [])
            nodes.append(node)
            nodes += self._after.get(id(node), [])
        result = copy_with_nodes(self._model, nodes)
        # Shapes that onnxsim or the exporter noted are those of before.
        del result.graph.value_info[:]
        return result

    def _insert(self, reader: NodeProto, position: int, node: NodeProto) -> None:
        self._before.setdefault(id(reader), []).append(node)
        reader.input[position] = node.output[0]

    def _constant(self, values: Sequence[int]) -> str:
        tensor = onnx.numpy_helper.from_array(np.array(values, np.int64), self._fresh_name())
        self._model.graph.initializer.append(tensor)
        return tensor.name

    def _fresh_name(self) -> str:
        self._name_count += 1
        return f"layout/{self._name_count}"


def get_attribute(node: NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default where the node has none of this name."""
    for entry in node.attribute:
        if entry.name == name:
            return get_attribute_value(entry)
    return default


def set_attribute(node: NodeProto, name: str, value: Any) -> None:
    """Set or replace an attribute of a node, in place."""
    for position, entry in enumerate(node.attribute):
        if entry.name == name:
            del node.attribute[position]
            break
    node.attribute.append(make_attribute(name, value))
