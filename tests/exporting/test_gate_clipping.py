from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from fertool.exporting.gate_clipping import clip_gates


def gate(op_type, scale, zero_point):
    """All 256 integers of a grid through a gate: uint8 [256] to float32 [256]."""
    attributes = {"alpha": 1 / 6} if op_type == "HardSigmoid" else {}
    nodes = [
        make_node("DequantizeLinear", ["x", "scale", "zero_point"], ["values"]),
        make_node(op_type, ["values"], ["y"], **attributes),
    ]
    constants = [
        from_array(np.float32(scale), "scale"),
        from_array(np.uint8(zero_point), "zero_point"),
    ]
    x = make_tensor_value_info("x", TensorProto.UINT8, [256])
    y = make_tensor_value_info("y", TensorProto.FLOAT, [256])
    graph = make_graph(nodes, "gate", [x], [y], constants)
    return make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8)


def run(model):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": np.arange(256, dtype=np.uint8)})[0]


def operators(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize("zero_point", [1, 20, 127, 128, 255])
def test_gates_on_integers_are_hard_sigmoid_and_hard_swish(zero_point):
    scale = 3 / zero_point
    values = (np.arange(256) - zero_point) * scale
    sigmoid = np.clip(values + 3, 0, 6) / 6
    for op_type, expected in (("HardSigmoid", sigmoid), ("HardSwish", values * sigmoid)):
        clipped = clip_gates(gate(op_type, scale, zero_point))
        assert run(clipped) == pytest.approx(expected, rel=1e-6, abs=1e-6)
        # Above the middle of the grid there is nothing to clip.
        expected_operators = {
            "DequantizeLinear": 1 + (op_type == "HardSwish"),
            "Clip": int(zero_point < 128),
        }
        expected_operators["Mul"] = int(op_type == "HardSwish")
        assert operators(clipped) == Counter(expected_operators)


def test_gates_on_other_grids_stay():
    for scale, zero_point in ((0.03, 99), (0.03, 0)):
        model = gate("HardSwish", scale, zero_point)
        assert clip_gates(model) == model
