"""HardSigmoid and HardSwish on integers, which ONNX Runtime would compute as floats between two conversions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto
from onnx.helper import make_node
from onnx.numpy_helper import from_array

from fertool.export.compact import Array, constants
from fertool.models.quantized import reaches_knee
from fertool.models.sites import GATE_KNEE

Constants = dict[str, "np.float32 | np.uint8"]
_GATES = ("HardSigmoid", "HardSwish")


def gates_clipped(model: ModelProto) -> ModelProto:
    """Return the same graph with the gates on integers as a Clip of these: fast, and not rounded.

    Where scale x zero point is 3, HardSigmoid((q - zero point) x scale) = Clip(q, 0, 2 x zero point) x scale / 6, and
    HardSwish is the product with what it reads. On other grids they stay as they are.
    """
    values = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in constants(model)}
    sources = {
        node.output[0]: node for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    result = ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:]
    for node in model.graph.node:
        source = sources.get(node.input[0]) if node.op_type in _GATES else None
        grid = [values[name] for name in source.input[1:] if name in values] if source else []
        if source is None or not _reaches_knee(grid):
            result.graph.node.append(node)
            continue
        nodes, added = _on_integers(node, source.input[0], grid[0], grid[1])
        result.graph.node.extend(nodes)
        result.graph.initializer.extend(
            from_array(np.asarray(value), name) for name, value in added.items()
        )
    # Runtimes would compute what nothing reads any more.
    read = {value for node in result.graph.node for value in node.input} | {
        value.name for value in model.graph.output
    }
    for unread in [node for node in result.graph.node if node.op_type == "DequantizeLinear"]:
        if read.isdisjoint(unread.output):
            result.graph.node.remove(unread)
    return result


def _reaches_knee(grid: list[Array]) -> bool:
    """Whether these are scale and zero point of a tensor whose first value is -3."""
    return (
        len(grid) == 2
        and not any(value.ndim for value in grid)
        and reaches_knee(*(v.item() for v in grid))
    )


def _on_integers(
    node: NodeProto, integers: str, scale: Array, zero_point: Array
) -> tuple[list[NodeProto], Constants]:
    """Return the nodes in place of one gate, and the constants that these read."""
    gate = node.output[0] if node.op_type == "HardSigmoid" else f"{node.output[0]}/gate"
    added: Constants = {
        f"{gate}/scale": np.float32(scale / (2 * GATE_KNEE)),
        f"{gate}/zero": np.uint8(0),
    }
    nodes, dequantize_inputs = [], [integers, *added]
    # With more than half of the grid below zero nothing reaches the upper end.
    if 2 * int(zero_point) < np.iinfo(np.uint8).max:
        high = f"{gate}/high"
        added[high] = np.uint8(2 * int(zero_point))
        nodes.append(make_node("Clip", [integers, "", high], [f"{gate}/clipped"]))
        dequantize_inputs[0] = nodes[0].output[0]
    nodes.append(make_node("DequantizeLinear", dequantize_inputs, [gate]))
    if node.op_type == "HardSwish":
        nodes.append(make_node("Mul", [node.input[0], gate], [node.output[0]]))
    return nodes, added
