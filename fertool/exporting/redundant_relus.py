"""ReLUs whose work the quantizer behind them does as well."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto

from fertool.exporting.graph_parts import (
    Array,
    constant_arrays,
    copy_node,
    copy_with_nodes,
    find_readers,
    output_names,
)


def remove_redundant_relus(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph without ReLUs that only quantizers with a zero point of 0 read.

    Such a quantizer clamps negative values to 0 itself. ONNX Runtime removes these ReLUs, too;
    OpenCV 5 cannot read one between a sum and its quantizer.
    """
    arrays = constant_arrays(model)
    outputs = output_names(model)
    readers = find_readers(model.graph.node)
    nodes = []
    sources: dict[str, str] = {}
    for original in model.graph.node:
        node = copy_node(original)
        for position, value in enumerate(node.input):
            node.input[position] = sources.get(value, value)

        output = node.output[0]
        # Outputs of the graph have readers that are not in it.
        is_inner_relu = node.op_type == "Relu" and output not in outputs
        if is_inner_relu and _all_clamp_at_zero(readers.get(output, []), arrays):
            sources[output] = node.input[0]
        else:
            nodes.append(node)
    return copy_with_nodes(model, nodes)


def _all_clamp_at_zero(nodes: Iterable[NodeProto], arrays: Mapping[str, Array]) -> bool:
    """Return whether each node is a QuantizeLinear to uint8 whose zero point is the constant 0."""
    for node in nodes:
        if node.op_type != "QuantizeLinear" or len(node.input) != 3:
            return False
        zero_point = arrays.get(node.input[2])
        if zero_point is None or zero_point.dtype != np.uint8 or zero_point.any():
            return False
    return True
