"""`eval` and `bench` of ONNX files of other programs, as a user meets them."""

import json

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

CLASSES = "angry,disgust,fear,happy,sad,surprise,neutral"


def write(path, last, kind=TensorProto.FLOAT, shape=("batch", 7)):
    """Write a linear classifier of 48 x 48 float pixels with one more operator on its logits."""
    weight = np.random.default_rng(0).normal(size=(2304, 7)).astype(np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["logits"]),
        helper.make_node(
            last, ["logits"], ["y"], **({"axis": 1, "keepdims": 0} if last == "ArgMax" else {})
        ),
    ]
    images = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, 48, 48])
    answers = helper.make_tensor_value_info("y", kind, shape)
    graph = helper.make_graph(
        nodes, "g", [images], [answers], [numpy_helper.from_array(weight, "w")]
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path
    )
    return path


@pytest.fixture
def foreign(tmp_path):
    return write(tmp_path / "foreign.ONNX", "Identity")


def only_error(err):
    errors = [line for line in err.splitlines() if line.startswith("error:")]
    assert len(errors) == 1, err
    assert "Traceback" not in err
    return errors[0]


def test_what_is_assumed_is_noted_and_in_the_json(fertool, foreign):
    data = ("--data", "synth:140", "--classes", CLASSES, "--json")
    code, out, err = fertool("eval", foreign, *data)
    assert code == 0, err
    assert "foreign.ONNX: gets pixels of 0..1" in err
    found = json.loads(out)
    assert found["foreign"]["pixel_range"] == "0..1"
    told = ("--pixel-range", "-1..1", "--mean", "0.1", "--std", "0.5", "--output-name", "y")
    code, out, err = fertool("eval", foreign, *data, *told)
    assert code == 0, err
    assert json.loads(out)["foreign"] == {
        "pixel_range": "-1..1",
        "mean": [0.1],
        "std": [0.5],
        "output": "y",
        "outputs": ["y"],
    }
    code, out, err = fertool(
        "bench", foreign, *data, *told, "--runs", "2", "--warmup", "0", "--starts", "1"
    )
    assert code == 0, err
    (result,) = json.loads(out)["results"]
    assert result["foreign"]["pixel_range"] == "-1..1"
    assert result["accuracy"] is not None


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (("--classes", "angry,angry,fear,happy,sad,surprise,neutral"), 2, "'angry' twice"),
        (("--classes", "angry,happy"), 2, "7 outputs for 2 classes"),
        (("--classes", ""), 2, "an empty name"),
        (("--classes", CLASSES, "--mean", "a"), 2, "--mean a: not numbers"),
        (("--classes", CLASSES, "--std", "0"), 2, "--std 0"),
        (("--classes", CLASSES, "--mean", "1,2,3"), 2, "3 values for 1 channels"),
        (("--classes", CLASSES, "--output-name", "logit"), 2, "unknown output"),
        (("--classes", CLASSES, "--time-limit", "nan"), 2, "--time-limit"),
        (("--classes", CLASSES, "--input-size", "1000000000"), 2, "not --input-size"),
    ],
)
@pytest.mark.parametrize("command", ["eval", "bench"])
def test_wrong_options_are_one_error(fertool, foreign, command, options, code, message):
    found, out, err = fertool(command, foreign, "--data", "synth:70", *options)
    assert (found, out) == (code, "")
    assert message in only_error(err)


@pytest.mark.parametrize("data", [("--data", "synth:70"), ()])
def test_an_answer_of_classes_is_one_error_in_eval_and_bench(fertool, tmp_path, data):
    path = write(tmp_path / "m.onnx", "ArgMax", TensorProto.INT64, ["batch"])
    for command in (("eval",), ("bench", "--runs", "2", "--warmup", "0", "--starts", "1")):
        if command[0] == "bench" or data:
            code, out, err = fertool(*command, path, *data, "--classes", CLASSES)
            assert (code, out) == (1, "")
            assert "int64" in only_error(err)


def test_options_do_not_change_a_file_that_says_itself_what_it_takes(fertool, tmp_path):
    from fertool import models
    from fertool.spec import InputSpec

    path = tmp_path / "model.pt"
    spec, module = models.create(
        "micro_expnet", {"width_mult": 0.25}, InputSpec(), tuple(CLASSES.split(","))
    )
    models.save_model(path, spec, module)
    code, out, err = fertool("eval", path, "--data", "synth:70", "--mean", "0.5", "--json")
    assert code == 0
    assert "are ignored" in err
    assert json.loads(out)["foreign"] is None
