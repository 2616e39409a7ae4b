"""Global pools of an INT8 graph, in the form in which ONNX Runtime computes them on integers."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array

from fertool.exporting.graph_parts import (
    Array,
    constant_arrays,
    copy_node,
    copy_with_nodes,
    find_producers,
    find_readers,
    infer_shapes,
)

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
_CHANNELS_LAST = [0, 2, 3, 1]
_PIXEL_AXES = np.array([2, 3])
# What ONNX Runtime's QLinearGlobalAveragePool takes as input scale / (output scale x pixels): from
# the minimum to below the maximum.
_MIN_RATIO = 2.0**-32
_MAX_RATIO = 256.0
_AXES_AS_INPUT = 18
"""The first operator set whose ReduceMean has its axes as an input."""


def reduce_extreme_pools(model: ModelProto) -> ModelProto:
    """Return the same INT8 graph without GlobalAveragePools that ONNX Runtime refuses on integers.

    It fuses a pool between two quantizers and then refuses scales that are too far apart
    ("parameter out of computation range"), as a quantizer has whose values collapsed while it was
    trained. A ReduceMean is the same mean, which it computes on floats.
    """
    arrays = constant_arrays(model)
    producers = find_producers(model.graph.node)
    readers = find_readers(model.graph.node)
    shapes = infer_shapes(model)
    opset = next(entry.version for entry in model.opset_import if not entry.domain)
    nodes = []
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        ratio = None
        if node.op_type == "GlobalAveragePool":
            scales = _scales_around(node, arrays, producers, readers)
            # Of a map [N, C, H, W]; 0 where its height or width is not known.
            pixels = math.prod(shapes.get(node.input[0], [0])[-2:])
            ratio = _requantization_ratio(scales, pixels)
        if ratio is None or _MIN_RATIO <= ratio < _MAX_RATIO:
            nodes.append(node)
            continue
        mean, axes = _mean_of_pixels(node, opset)
        nodes.append(mean)
        tensors += axes
    return copy_with_nodes(model, nodes, tensors)


def _scales_around(
    pool: NodeProto,
    arrays: Mapping[str, Array],
    producers: Mapping[str, NodeProto],
    readers: Mapping[str, list[NodeProto]],
) -> tuple[float, list[float]]:
    """Return the scale of a pool's input, 0 where it is not quantized, and those of its output."""
    outputs = []
    for reader in readers.get(pool.output[0], []):
        if reader.op_type == "QuantizeLinear" and reader.input[1] in arrays:
            outputs.append(float(arrays[reader.input[1]]))
    source = producers.get(pool.input[0])
    if source is None or source.op_type != "DequantizeLinear" or source.input[1] not in arrays:
        return 0.0, outputs
    return float(arrays[source.input[1]]), outputs


def _requantization_ratio(scales: tuple[float, list[float]], pixels: int) -> float | None:
    """Return input scale / (output scale x pixels), None where a pool is not between quantizers."""
    input_scale, output_scales = scales
    if not input_scale or not output_scales or not pixels:
        return None
    return input_scale / (output_scales[0] * pixels)


def _mean_of_pixels(pool: NodeProto, opset: int) -> tuple[NodeProto, list[TensorProto]]:
    """Return a ReduceMean in place of a pool, and the constants that it reads."""
    inputs, outputs = list(pool.input), list(pool.output)
    if opset < _AXES_AS_INPUT:
        return make_node("ReduceMean", inputs, outputs, axes=_PIXEL_AXES.tolist()), []
    axes = from_array(_PIXEL_AXES, f"{outputs[0]}/axes")
    return make_node("ReduceMean", [*inputs, axes.name], outputs), [axes]


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
