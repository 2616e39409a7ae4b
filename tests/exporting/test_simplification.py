import sys

import onnx
import pytest
from onnx import TensorProto, helper

from fertool.exporting import simplification


@pytest.fixture
def model():
    weight = onnx.numpy_helper.from_array(__import__("numpy").ones((2, 2), "int8"), "weight")
    scale = onnx.numpy_helper.from_array(__import__("numpy").float32(0.5), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["weight", "scale"], ["floats"]),
        helper.make_node("MatMul", ["images", "floats"], ["product"]),
        helper.make_node("Identity", ["product"], ["logits"]),
    ]
    images, logits = (
        helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2])
        for n in ("images", "logits")
    )
    graph = helper.make_graph(nodes, "g", [images], [logits], [weight, scale])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)


def test_onnxsim_drops_what_does_nothing_and_keeps_the_integers(model):
    notes = []
    result = simplification.simplify_graph(model, 60, notes.append)
    assert notes == []
    assert [node.op_type for node in result.graph.node] == ["DequantizeLinear", "MatMul"]
    assert {t.data_type for t in result.graph.initializer} == {TensorProto.INT8, TensorProto.FLOAT}


COPY = "import shutil, sys; shutil.copy(sys.argv[1], sys.argv[2])"
LOAD = "import onnx, sys; m = onnx.load(sys.argv[1])"


@pytest.mark.parametrize(
    ("code", "note"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "was killed by signal 11"),
        ("raise RuntimeError('no such pass')", "failed (RuntimeError: no such pass)"),
        ("import sys; sys.exit(3)", "failed (exit code 3)"),
        ("pass", "left no readable file"),
        ("import sys; open(sys.argv[2], 'w').write('hello')", "left no readable file"),
        ("import time; time.sleep(60)", "took more than 2 s"),
        (
            f"{LOAD}; m.graph.input[0].name = 'x'; onnx.save(m, sys.argv[2])",
            "changed the inputs or outputs",
        ),
        (
            f"{LOAD}; m.graph.initializer[0].data_type = 2; onnx.save(m, sys.argv[2])",
            "integer weights into floats",
        ),
        (COPY, None),
    ],
)
def test_a_failing_onnxsim_leaves_the_graph_as_it_is(model, monkeypatch, code, note):
    monkeypatch.setattr(
        simplification,
        "COMMAND",
        (sys.executable, "-S", "-c", code) if "onnx" not in code else (sys.executable, "-c", code),
    )
    notes = []
    assert simplification.simplify_graph(model, 2 if "sleep" in code else 60, notes.append) == model
    assert len(notes) == (0 if note is None else 1)
    assert note is None or note in notes[0]
