"""Pooled maps of an INT8 graph are read with the channels last, as its convolutions leave them."""

from __future__ import annotations

import onnx
from onnx import ModelProto
from onnx.helper import make_node

_GRIDS = ("QuantizeLinear", "DequantizeLinear")


def pools_read_last(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph with a Transpose between a GlobalAveragePool and its Flatten.

    Of one pixel it changes no byte. But it is the opposite of what ONNX Runtime puts behind the last convolution, and
    the two cancel: else all that lies between them, pool and HardSwish, would run on the slower layout.
    """
    made_by = {output: node for node in model.graph.node for output in node.output}
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        source = made_by.get(node.input[0]) if node.op_type == "Flatten" else None
        rounded = False
        while source is not None and source.op_type in _GRIDS:
            source, rounded = made_by.get(source.input[0]), True
        copied = result.graph.node.add()
        copied.CopyFrom(node)
        if rounded and source is not None and source.op_type == "GlobalAveragePool":
            value = f"{node.input[0]}/last"
            copied.input[0] = value
            turned = make_node("Transpose", [node.input[0]], [value], perm=[0, 2, 3, 1])
            result.graph.node.insert(len(result.graph.node) - 1, turned)
    return result
