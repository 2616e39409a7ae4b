"""Linear layers of an INT8 graph, in a form that OpenCV's engine can run."""

from __future__ import annotations

from onnx import ModelProto, NodeProto
from onnx.helper import make_node

from fertool.exporting.graph_parts import (
    constant_arrays,
    copy_node,
    copy_with_nodes,
    output_names,
)

_ZERO_POINT = 2
"""The input of a DequantizeLinear that names it."""


def compute_linear_zero_points(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph, where an Identity computes the zero points of linear weights.

    OpenCV 5 fuses a Gemm between quantizers whose weight has constant parameters, and then misses
    the result ("bufidx >= 0"). ONNX Runtime needs these zero points, though they are 0, to compute
    such a layer on integers; like OpenVINO it removes an Identity first.
    """
    arrays = constant_arrays(model)
    outputs = output_names(model)
    weights: set[str] = set()
    for node in model.graph.node:
        # Logits are floats, which are not fused.
        if node.op_type == "Gemm" and node.output[0] not in outputs:
            weights.add(node.input[1])

    nodes: list[NodeProto] = []
    for original in model.graph.node:
        node = copy_node(original)
        is_weight = node.op_type == "DequantizeLinear" and node.output[0] in weights
        if is_weight and len(node.input) > _ZERO_POINT and node.input[_ZERO_POINT] in arrays:
            computed = f"{node.output[0]}/zero"
            nodes.append(make_node("Identity", [node.input[_ZERO_POINT]], [computed]))
            node.input[_ZERO_POINT] = computed
        nodes.append(node)
    return copy_with_nodes(model, nodes)
