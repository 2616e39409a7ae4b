"""HardSigmoid and HardSwish on integers, which ONNX Runtime would otherwise compute in float."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array

from fertool.exporting.graph_parts import (
    Array,
    constant_arrays,
    copy_with_nodes,
    find_producers,
    output_names,
)
from fertool.models.quantized import starts_at_knee
from fertool.models.quantizer_points import GATE_KNEE

_GATES = ("HardSigmoid", "HardSwish")


def clip_gates(model: ModelProto) -> ModelProto:
    """Return the same graph with gates on integers as a Clip of these: fast, and without rounding.

    Where scale x zero point is 3, HardSigmoid((q - zero point) x scale) = Clip(q, 0, 2 x zero
    point) x scale / 6, and HardSwish is the product of that with its input. Gates on other scales
    are kept.
    """
    arrays = constant_arrays(model)
    producers = find_producers(model.graph.node)
    nodes: list[NodeProto] = []
    tensors = list(model.graph.initializer)
    for node in model.graph.node:
        source = producers.get(node.input[0]) if node.op_type in _GATES else None
        if source is None or not _starts_at_knee(source, arrays):
            nodes.append(node)
            continue
        gate_nodes, gate_tensors = _integer_gate(node, source, arrays)
        nodes += gate_nodes
        tensors += gate_tensors

    nodes = _without_unread_dequantizers(nodes, output_names(model))
    return copy_with_nodes(model, nodes, tensors)


def _starts_at_knee(node: NodeProto, arrays: Mapping[str, Array]) -> bool:
    """Return whether this is a DequantizeLinear whose integer 0 stands for -3.

    Scale and zero point have to be constants.
    """
    if node.op_type != "DequantizeLinear" or len(node.input) != 3:
        return False
    _, scale_name, zero_name = node.input
    scale = arrays.get(scale_name)
    zero_point = arrays.get(zero_name)
    if scale is None or zero_point is None:
        return False
    # With one scale per channel each has an axis.
    if scale.ndim or zero_point.ndim:
        return False
    return starts_at_knee(scale.item(), zero_point.item())


def _integer_gate(
    node: NodeProto, dequantizer: NodeProto, arrays: Mapping[str, Array]
) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes that replace one gate, and the constants that they read."""
    integers, scale_name, zero_name = dequantizer.input
    scale, zero_point = arrays[scale_name], arrays[zero_name]
    is_swish = node.op_type == "HardSwish"
    gate = f"{node.output[0]}/gate" if is_swish else node.output[0]
    gate_scale, gate_zero = f"{gate}/scale", f"{gate}/zero"
    constants = {gate_scale: np.float32(scale / (2 * GATE_KNEE)), gate_zero: np.uint8(0)}
    nodes = []

    # With a zero point above the middle of the bytes no integer reaches the upper end of the gate.
    high = 2 * int(zero_point)
    if high < np.iinfo(np.uint8).max:
        gate_high, clipped = f"{gate}/high", f"{gate}/clipped"
        constants[gate_high] = np.uint8(high)
        nodes.append(make_node("Clip", [integers, "", gate_high], [clipped]))
        integers = clipped

    nodes.append(make_node("DequantizeLinear", [integers, gate_scale, gate_zero], [gate]))
    if is_swish:
        nodes.append(make_node("Mul", [node.input[0], gate], [node.output[0]]))

    tensors = []
    for name, value in constants.items():
        tensors.append(from_array(np.asarray(value), name))
    return nodes, tensors


def _without_unread_dequantizers(
    nodes: Iterable[NodeProto], outputs: Iterable[str]
) -> list[NodeProto]:
    """Leave out each DequantizeLinear that nothing reads: runtimes would still compute it."""
    read = set(outputs)
    for node in nodes:
        read.update(node.input)

    kept = []
    for node in nodes:
        if node.op_type != "DequantizeLinear" or node.output[0] in read:
            kept.append(node)
    return kept
