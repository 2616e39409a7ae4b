"""What the page is told about a model."""

import json
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import fertool as ft
from fertool import models
from fertool.errors import FertoolError, UsageError
from fertool.faces.constants import FER2013_TEMPLATE
from fertool.spec import InputSpec


@pytest.fixture
def runtime(tmp_path):
    """A stand-in for onnxruntime-web."""
    folder = tmp_path / "onnxruntime-web"
    folder.mkdir()
    (folder / "ort.wasm.bundle.min.mjs").write_text("const a=1;export{a as Tensor};")
    (folder / "ort-wasm-simd-threaded.wasm").write_bytes(b"\0asm")
    return folder


@pytest.fixture
def settings(tmp_path, runtime):
    """Make a page and return the settings in it."""

    def make(model, **options):
        page = ft.app(model, tmp_path / "app.html", runtime=runtime, **options).path.read_text()
        return json.loads(re.search(r'id="settings">(.*?)</script>', page, re.DOTALL)[1])

    return make


def small_model(path, input, classes, **changes):
    spec, module = models.create("nano_resnet", {"width_mult": 0.25}, input, classes)
    models.save_model(path, replace(spec, **changes), module)
    return path


def test_the_header_is_the_contract(tmp_path, settings):
    template = tuple((0.1 * i, 0.5) for i in range(1, 6))
    file = small_model(
        tmp_path / "m.pt",
        InputSpec(3, 64, (0.5,) * 3, (0.25,) * 3),
        ("bored", "engaged"),
        temperature=1.5,
        face_template=template,
    )
    told = settings(file, min_confidence=0.4, smooth=0, min_score=0.8, detect_size=256)
    classifier = told["classifier"]
    assert classifier["classes"] == ["bored", "engaged"]
    assert (classifier["channels"], classifier["size"]) == (3, 64)
    assert (classifier["temperature"], classifier["pixel_type"]) == (1.5, "uint8")
    assert [tuple(point) for point in classifier["template"]] == list(template)
    assert told["detector"]["photo_size"] == told["detector"]["video_size"] == 256
    assert told["detector"]["min_score"] == 0.8
    assert (told["min_confidence"], told["smooth_s"]) == (0.4, 0)
    facts = dict(told["facts"])
    assert facts["file"] == "m.pt"
    assert facts["classes"] == "bored, engaged"


def test_a_model_in_memory_is_as_good_and_without_a_template_it_is_that_of_fer2013(
    tmp_path, settings
):
    file = small_model(tmp_path / "m.pt", InputSpec(1, 32), ("a", "b"))
    told = settings(ft.load(file))
    assert told == settings(file)
    assert np.allclose(told["classifier"]["template"], FER2013_TEMPLATE)
    assert told["detector"]["video_size"] == 320


def foreign_file(path, channels=3, batch=2, **save):
    shape = [batch, channels, 16, 16]
    weights = np.ones((channels * 256, 2), np.float32)
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 2])],
        [numpy_helper.from_array(weights, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path, **save)
    return path


def test_files_of_other_programs_are_used_as_they_are_described(tmp_path, settings):
    file = foreign_file(tmp_path / "m.onnx")
    told = settings(
        file, classes=("a", "b"), pixel_range="-1..1", mean=(0.1, 0.2, 0.3), std=(2.0,)
    )["classifier"]
    assert (told["pixel_type"], told["pixel_range"]) == ("float32", "-1..1")
    assert (told["mean"], told["std"]) == ([0.1, 0.2, 0.3], [2.0])
    assert (told["batch"], told["output"], told["may_be_probabilities"]) == (2, "y", True)


def test_what_a_browser_cannot_run_is_refused(tmp_path, settings):
    file = foreign_file(
        tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data"
    )
    with pytest.raises(FertoolError, match="has its weights in other files"):
        settings(file, classes=("a", "b"))
    with pytest.raises(UsageError, match="without fertool's header"):
        settings(foreign_file(tmp_path / "n.onnx"))
    (tmp_path / "m.tflite").write_bytes(b"TFL3")
    with pytest.raises(UsageError, match=r"m\.tflite: browsers run ONNX files"):
        settings(tmp_path / "m.tflite")


def test_an_empty_title_is_a_usage_error(tmp_path, settings):
    file = small_model(tmp_path / "m.pt", InputSpec(1, 32), ("a", "b"))
    with pytest.raises(UsageError, match="``title``: is empty"):
        settings(file, title=" \x1b")


def test_a_folder_is_one_only_with_its_name(tmp_path, runtime):
    file = small_model(tmp_path / "m.pt", InputSpec(1, 32), ("a", "b"))
    made = ft.app(file, tmp_path / "site", runtime=runtime, folder=True)
    assert {path.name for path in made.path.iterdir()} == set(made.files)
    assert made.size_bytes == sum(path.stat().st_size for path in made.path.iterdir())
    with pytest.raises(FertoolError, match=r"m\.pt: is a file"):
        ft.app(file, file, runtime=runtime, folder=True)
    with pytest.raises(FertoolError, match="the output is also an input"):
        ft.app(file, file, runtime=runtime)


def test_a_file_that_resizes_crops_itself_gets_them_as_it_wants(tmp_path, settings):
    model = ft.load(small_model(tmp_path / "m.pt", InputSpec(1, 32), ("bored", "engaged")))
    file = tmp_path / "m.onnx"
    ft.export(model, file, simplify=False, with_preprocessing=True, with_softmax=True)
    classifier = settings(file)["classifier"]
    assert (classifier["channels"], classifier["size"]) == (3, 32)
    assert classifier["channels_last"]
    assert classifier["may_be_probabilities"]
