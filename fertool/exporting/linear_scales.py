"""Hidden linear layers of an INT8 graph, in a form that OpenCV's engine can run."""

from __future__ import annotations

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array

from fertool.exporting.graph_parts import (
    constant_arrays,
    copy_node,
    copy_with_nodes,
    output_names,
)

_SCALE = 1
"""The input of a DequantizeLinear that names it."""


def halve_linear_scales(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph with the scales of hidden linear weights as float16, and a Cast.

    OpenCV 5 fuses a Gemm between quantizers whose weight has constant parameters, and then misses
    its result ("bufidx >= 0"). ONNX Runtime and OpenVINO fold the Cast before they look for integer
    layers. Scales that float16 does not hold exactly stay as they are.
    """
    arrays = constant_arrays(model)
    outputs = output_names(model)
    weights: set[str] = set()
    for node in model.graph.node:
        # Logits are floats, which OpenCV does not fuse.
        if node.op_type == "Gemm" and node.output[0] not in outputs:
            weights.add(node.input[1])

    nodes: list[NodeProto] = []
    tensors = list(model.graph.initializer)
    for original in model.graph.node:
        node = copy_node(original)
        if node.op_type == "DequantizeLinear" and node.output[0] in weights:
            scale = arrays.get(node.input[_SCALE], np.empty(0, np.float32))
            half = scale.astype(np.float16)
            if scale.size and np.array_equal(half.astype(np.float32), scale):
                stored, cast = f"{node.output[0]}/half", f"{node.output[0]}/scale"
                tensors.append(from_array(half, stored))
                nodes.append(make_node("Cast", [stored], [cast], to=TensorProto.FLOAT))
                node.input[_SCALE] = cast
        nodes.append(node)
    return copy_with_nodes(model, nodes, tensors)
