import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array

from fertool.exporting.redundant_relus import remove_redundant_relus


def rounded_relu(zero_point, *, also_read=False):
    """A ReLU of float32 [64] whose result is rounded, and perhaps read otherwise as well."""
    nodes = [
        make_node("Relu", ["x"], ["positive"]),
        make_node("QuantizeLinear", ["positive", "scale", "zero"], ["integers"]),
        make_node("DequantizeLinear", ["integers", "scale", "zero"], ["rounded"]),
        make_node("Add", ["rounded", "positive" if also_read else "rounded"], ["y"]),
    ]
    constants = [from_array(np.float32(0.1), "scale"), from_array(zero_point, "zero")]
    ends = [make_tensor_value_info(name, TensorProto.FLOAT, [64]) for name in "xy"]
    graph = make_graph(nodes, "g", ends[:1], ends[1:], constants)
    return make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8)


@pytest.mark.parametrize(
    ("zero_point", "also_read", "left"),
    [
        (np.uint8(0), False, 0),
        (np.uint8(1), False, 1),
        (np.int8(0), False, 1),
        (np.uint8(0), True, 1),
    ],
    ids=["cut off by the rounding", "another zero point", "negative integers", "read otherwise"],
)
def test_a_relu_goes_only_where_the_rounding_does_its_work(zero_point, also_read, left):
    model = rounded_relu(np.asarray(zero_point), also_read=also_read)
    result = remove_redundant_relus(model)
    assert sum(node.op_type == "Relu" for node in result.graph.node) == left
    values = np.linspace(-5, 5, 64, dtype=np.float32)
    found = [
        onnxruntime.InferenceSession(m.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": values}
        )
        for m in (model, result)
    ]
    assert np.array_equal(*found)
