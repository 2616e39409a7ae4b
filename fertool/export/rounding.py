"""ReLUs that a rounding makes superfluous."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto

from fertool.export.compact import constants


def relus_left_out(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph without the ReLUs whose result is only rounded to integers from a zero point of 0.

    Such a rounding cuts off what is below zero itself. ONNX Runtime leaves them out, too; OpenCV 5 cannot read one
    between a sum and its rounding.
    """
    values = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in constants(model)}
    readers: dict[str, list[NodeProto]] = {value.name: [] for value in model.graph.output}
    for node in model.graph.node:
        for value in node.input:
            readers.setdefault(value, []).append(node)
    outputs = {value.name for value in model.graph.output}

    def cuts_off(node: NodeProto) -> bool:
        if node.op_type != "QuantizeLinear" or len(node.input) != 3:
            return False
        zero_point = values.get(node.input[2])
        return zero_point is not None and zero_point.dtype == np.uint8 and not zero_point.any()

    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    source_of: dict[str, str] = {}
    for node in model.graph.node:
        output = node.output[0]
        if node.op_type == "Relu" and output not in outputs and all(map(cuts_off, readers[output])):
            source_of[output] = source_of.get(node.input[0], node.input[0])
            continue
        copied = result.graph.node.add()
        copied.CopyFrom(node)
        for position, value in enumerate(copied.input):
            copied.input[position] = source_of.get(value, value)
    return result
