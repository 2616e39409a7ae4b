"""Pooled maps of an INT8 graph are read with the channels last, as its convolutions leave them."""

from __future__ import annotations

from collections.abc import Mapping

from onnx import ModelProto, NodeProto
from onnx.helper import make_node

from fertool.exporting.graph_parts import copy_node, copy_with_nodes, find_producers

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_CHANNELS_LAST = [0, 2, 3, 1]


def transpose_pooled_maps(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph with a Transpose between a GlobalAveragePool and its Flatten.

    A map of one pixel has the same bytes in both orders. The Transpose is the opposite of the one
    that ONNX Runtime puts behind the last convolution, so that the two cancel; otherwise all that
    lies between them, pool and HardSwish, would run on the slower layout.
    """
    producers = find_producers(model.graph.node)
    nodes = []
    for original in model.graph.node:
        node = copy_node(original)
        if node.op_type == "Flatten" and _reads_quantized_pool(node, producers):
            transposed = f"{node.input[0]}/last"
            nodes.append(make_node("Transpose", [node.input[0]], [transposed], perm=_CHANNELS_LAST))
            node.input[0] = transposed
        nodes.append(node)
    return copy_with_nodes(model, nodes)


def _reads_quantized_pool(flatten: NodeProto, producers: Mapping[str, NodeProto]) -> bool:
    """Return whether a Flatten reads a GlobalAveragePool behind at least one quantizer."""
    source = producers.get(flatten.input[0])
    is_quantized = False
    while source is not None and source.op_type in _QUANTIZERS:
        source = producers.get(source.input[0])
        is_quantized = True
    return is_quantized and source is not None and source.op_type == "GlobalAveragePool"
