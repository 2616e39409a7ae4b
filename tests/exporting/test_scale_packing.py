import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_opsetid, make_tensor_value_info
from onnx.numpy_helper import from_array, to_array

from fertool.exporting.compaction import compact_graph
from fertool.exporting.scale_packing import pack_scales

SOURCE, WEIGHT = np.float32(0.0123), np.array([0.5, 0.25, 2.0**-24], np.float32)


def layer(bias_scale=SOURCE * WEIGHT, weight_scale=WEIGHT, bias=(7, -300, 32767)):
    """A 1x1 convolution of integers: uint8 [1, 2, 2, 2] to float32 [1, 3, 2, 2]."""
    constants = {
        "xs": SOURCE,
        "xz": np.array(3, np.uint8),
        "w": np.arange(-3, 3, dtype=np.int8).reshape(3, 2, 1, 1),
        "ws": np.asarray(weight_scale, np.float32),
        "b": np.array(bias, np.int32),
        "bs": np.asarray(bias_scale, np.float32),
    }
    nodes = [
        make_node("DequantizeLinear", ["x", "xs", "xz"], ["xf"]),
        make_node("DequantizeLinear", ["w", "ws"], ["wf"], axis=0),
        make_node("DequantizeLinear", ["b", "bs"], ["bf"], axis=0),
        make_node("Conv", ["xf", "wf", "bf"], ["y"]),
    ]
    graph = make_graph(
        nodes,
        "layer",
        [make_tensor_value_info("x", TensorProto.UINT8, [1, 2, 2, 2])],
        [make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 2, 2])],
        [from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return make_model(graph, opset_imports=[make_opsetid("", 18)], ir_version=8)


def run(model):
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": np.arange(8, dtype=np.uint8).reshape(1, 2, 2, 2)})[0]


def stored(model):
    """The types of the vectors that the file holds."""
    tensors = [to_array(tensor) for tensor in compact_graph(model).graph.initializer]
    return sorted(
        str(tensor.dtype) for tensor in tensors if tensor.ndim == 1 and tensor.dtype != np.int64
    )


def test_scales_and_biases_are_stored_small_and_unfold_to_the_same_bits():
    packed = pack_scales(layer())
    assert stored(packed) == ["float16", "int16"]
    assert np.array_equal(run(packed), run(layer()))


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        (
            {"weight_scale": [0.5, 0.25, 0.1], "bias_scale": SOURCE * np.float32([0.5, 0.25, 0.1])},
            ["float32", "int16"],
        ),
        ({"bias": (7, -300, 32768)}, ["float16", "int32"]),
        ({"bias": (7, -128, 127)}, ["float16", "int8"]),
        ({"bias_scale": np.nextafter(SOURCE * WEIGHT, 1)}, ["float16", "float32", "int16"]),
    ],
)
def test_what_would_not_be_exact_in_a_smaller_type_is_in_the_next(change, kept):
    packed = pack_scales(layer(**change))
    assert stored(packed) == kept
    assert np.array_equal(run(packed), run(layer(**change)))
