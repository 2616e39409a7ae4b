"""Graphs of other programs: how they are fed, what they must answer,
and that none can fill the memory or the day.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnx_files import CLASSES, example_spec, linear, random_images, write_graph, write_onnx

from fertool.artifact.onnx_digest import append_digest
from fertool.cli.memory_limit import limit_growth
from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError, UsageError
from fertool.onnx_runtime import guard_memory
from fertool.runtime.foreign import foreign_input
from fertool.runtime.opening import open_predictor

KNOWN = ForeignModel(CLASSES)
node = helper.make_node


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({}, lambda mean: mean / 255),
        ({"pixel_range": "0..255"}, lambda mean: mean),
        ({"pixel_range": "-1..1"}, lambda mean: 2 * mean / 255 - 1),
        ({"mean": (0.5,), "std": (0.25,)}, lambda mean: (mean / 255 - 0.5) / 0.25),
        ({"pixel_range": "0..255", "mean": (128.0,)}, lambda mean: mean - 128),
    ],
)
def test_float_graphs_get_pixels_as_told_and_the_file_says_how(tmp_path, told, expected) -> None:
    nodes, constants = linear("y")
    path = write_graph(tmp_path / "m.onnx", nodes, constants=constants)
    predictor = open_predictor(path, foreign=ForeignModel(CLASSES, **told))
    images = random_images(5)
    means = images.mean((1, 2, 3))[:, None].repeat(3, 1)
    np.testing.assert_allclose(predictor.logits(images), expected(means), rtol=1e-4, atol=1e-4)
    assert predictor.assumptions is not None
    for name, value in told.items():
        assert getattr(predictor.assumptions, name) == value
    assert f"pixels of {told.get('pixel_range', '0..1')}" in predictor.assumptions.description


def test_one_of_several_outputs_counts_and_unknown_ones_are_told(tmp_path: Path) -> None:
    nodes, constants = linear("first")
    nodes.append(node("Neg", ["first"], ["second"]))
    ends = {name: (TensorProto.FLOAT, ("batch", 3)) for name in ("first", "second")}
    path = write_graph(tmp_path / "m.onnx", nodes, constants=constants, outputs=ends)
    images = random_images(2)
    first = open_predictor(path, foreign=KNOWN)
    second = open_predictor(path, foreign=ForeignModel(CLASSES, output_name="second"))
    np.testing.assert_array_equal(first.logits(images), -second.logits(images))
    assert first.assumptions is not None
    assert "first, second counts 'first'" in first.assumptions.description
    with pytest.raises(UsageError, match=r"unknown output of .* 'third'"):
        open_predictor(path, foreign=ForeignModel(CLASSES, output_name="third"))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"classes": ("a", "b", "a")}, "'a' twice"),
        ({"classes": ("a", "", "b")}, "an empty name"),
        ({"mean": (float("nan"),)}, "``mean=nan``"),
        ({"std": (0.0,)}, "``std=0``"),
        ({"std": (float("inf"),)}, "``std=inf``"),
    ],
)
def test_options_that_make_no_sense(told, message) -> None:
    with pytest.raises(UsageError, match=message):
        ForeignModel(**told)


def test_preprocessing_that_does_not_fit_the_graph(tmp_path: Path) -> None:
    integers = write_onnx(tmp_path / "uint8.onnx")
    with pytest.raises(UsageError, match="takes uint8 pixels"):
        open_predictor(integers, foreign=ForeignModel(CLASSES, pixel_range="0..255"))
    nodes, constants = linear("y")
    path = write_graph(tmp_path / "m.onnx", nodes, constants=constants)
    with pytest.raises(UsageError, match="3 values for 1 channels"):
        open_predictor(path, foreign=ForeignModel(CLASSES, mean=(0.1, 0.2, 0.3)))


def answering(
    last: list[onnx.NodeProto],
    kind: int = TensorProto.FLOAT,
    shape: tuple[int | str, ...] | None = None,
):
    nodes, constants = linear()
    return {"nodes": [*nodes, *last], "constants": constants, "outputs": {"y": (kind, shape)}}


NAN = np.full((64, 3), np.nan, np.float32)
WRONG_ANSWERS = {
    "argmax": answering(
        [node("ArgMax", ["logits"], ["y"], axis=1, keepdims=0)], TensorProto.INT64, ("batch",)
    ),
    "argmax kept": answering(
        [node("ArgMax", ["logits"], ["y"], axis=1)], TensorProto.INT64, ("batch", 1)
    ),
    "rank": answering([node("ReduceMax", ["logits"], ["y"], axes=[1], keepdims=0)]),
    "rank told": answering(
        [node("ReduceMax", ["logits"], ["y"], axes=[1], keepdims=0)], shape=("batch",)
    ),
    "one row": answering([node("ReduceMax", ["logits"], ["y"], axes=[0])], shape=("rows", 3)),
    "count": answering([node("Concat", ["logits", "logits"], ["y"], axis=1)], shape=("batch", 6)),
    "count not told": answering(
        [node("Concat", ["logits", "logits"], ["y"], axis=1)], shape=("batch", "n")
    ),
    "strings": answering(
        [node("Cast", ["logits"], ["y"], to=TensorProto.STRING)], TensorProto.STRING, ("batch", 3)
    ),
    "no number": {"nodes": linear("y", NAN)[0], "constants": {"w": NAN}},
    "infinite": {
        "nodes": linear("y", NAN)[0],
        "constants": {"w": np.full((64, 3), np.inf, np.float32)},
    },
}


@pytest.mark.parametrize("made", WRONG_ANSWERS.values(), ids=WRONG_ANSWERS)
def test_answers_other_than_floats_by_image_and_class_are_one_error(tmp_path: Path, made) -> None:
    path = write_graph(tmp_path / "m.onnx", **made)
    with pytest.raises(FertoolError, match=r"m\.onnx: ") as caught:
        open_predictor(path, foreign=KNOWN).logits(random_images(4))
    assert "\n" not in caught.value.message
    assert caught.value.hint


def test_a_probability_of_zero_is_an_answer(tmp_path: Path) -> None:
    nodes, constants = linear()
    nodes += [node("Add", ["logits", "sure"], ["y"])]
    constants["sure"] = np.array([0, -np.inf, 0], np.float32)
    path = write_graph(tmp_path / "m.onnx", nodes, constants=constants)
    assert np.isneginf(open_predictor(path, foreign=KNOWN).logits(random_images(2))[:, 1]).all()


@pytest.mark.parametrize("known", [True, False], ids=["constant", "by the pixels"])
def test_a_graph_that_asks_for_all_memory_gets_an_error(tmp_path: Path, known: bool) -> None:
    nodes, constants = linear()
    nodes += [
        node("ReduceMin", ["x"], ["low"], keepdims=0),
        node("Cast", ["low"], ["zero"], to=TensorProto.INT64),
        node("Add", ["size", "zero"], ["sizes"]),
        node("ConstantOfShape", ["size" if known else "sizes"], ["huge"]),
        node("ReduceMax", ["huge"], ["nothing"], keepdims=0),
        node("Add", ["logits", "nothing"], ["y"]),
    ]
    path = write_graph(
        tmp_path / "m.onnx", nodes, constants={**constants, "size": np.array([1 << 36])}
    )
    with (
        guard_memory(limit_growth),
        pytest.raises(FertoolError, match=r"m\.onnx: ONNX Runtime cannot"),
    ):
        open_predictor(path, foreign=KNOWN).logits(random_images(4) // 2)


def test_a_graph_is_run_without_a_limit_on_the_process_unless_the_program_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    limits = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limit: limits.append(limit))
    nodes, constants = linear("y")
    path = write_graph(tmp_path / "m.onnx", nodes, constants=constants)
    open_predictor(path, foreign=KNOWN).logits(random_images(2))
    assert limits == []
    with guard_memory(limit_growth):
        open_predictor(path, foreign=KNOWN).logits(random_images(2))
    # One for opening, two for passes, each taken back.
    assert len(limits) == 6


def endless(path: Path) -> Path:
    value, scalar = helper.make_tensor_value_info, TensorProto.FLOAT
    counting = [node("Identity", ["going"], ["on"]), node("Add", ["sum", "one"], ["next"])]
    body = helper.make_graph(
        counting,
        "body",
        [
            value("turn", TensorProto.INT64, []),
            value("going", TensorProto.BOOL, []),
            value("sum", scalar, []),
        ],
        [value("on", TensorProto.BOOL, []), value("next", scalar, [])],
    )
    nodes, constants = linear()
    nodes += [
        node("ReduceMax", ["x"], ["start"], keepdims=0),
        node("Loop", ["turns", "", "start"], ["total"], body=body),
        node("Add", ["logits", "total"], ["y"]),
    ]
    constants |= {"turns": np.array(1 << 62), "one": np.float32(1)}
    return write_graph(path, nodes, constants=constants)


def test_a_graph_without_an_end_is_ended(tmp_path: Path) -> None:
    predictor = open_predictor(endless(tmp_path / "m.onnx"), foreign=replace(KNOWN, time_limit=0.5))
    with pytest.raises(FertoolError, match=r"no result after 0\.5 s"):
        predictor.logits(random_images(300))


@pytest.mark.parametrize(
    "shape",
    [
        ("b", 1, 10**5, 10**5),
        ("b", 1, 2**31, 2**31),
        ("b", 3, 1025, 1025),
        (10**9, 1, 8, 8),
        (2**40, 1, 8, 8),
        (0, 1, 8, 8),
        ("b", 10**9, 8, 8),
        ("b", 1, 8),
        ("b", 1, 8, 9),
        (),
    ],
)
def test_absurd_inputs_are_refused_before_anything_is_allocated(tmp_path: Path, shape) -> None:
    nodes = [node("Flatten", ["x"], ["flat"]), node("ReduceMax", ["flat"], ["y"], axes=[1])]
    path = write_graph(
        tmp_path / "m.onnx", nodes, shape=shape, outputs={"y": (TensorProto.FLOAT, None)}
    )
    with pytest.raises(FertoolError, match=r"m\.onnx: "):
        open_predictor(path, foreign=KNOWN).logits(random_images(2))


@pytest.mark.parametrize("size", [7, 10**5, 10**9])
def test_a_header_of_another_size_than_the_graph_is_refused(tmp_path: Path, size: int) -> None:
    path = write_onnx(tmp_path / "m.onnx", size=8, spec=example_spec(size))
    with pytest.raises(FertoolError, match=r"m\.onnx: "):
        open_predictor(path)


def test_files_of_older_versions_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    model = onnx.load(path)
    intact = path.read_bytes()
    del model.metadata_props[1:]
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FertoolError, match="no digest of its content") as caught:
        open_predictor(path)
    assert "export it again" in caught.value.hint
    path.write_bytes(intact.replace(np.float32(100).tobytes(), np.float32(101).tobytes(), 1))
    with pytest.raises(FertoolError, match="does not match its digest"):
        open_predictor(path)


def test_metadata_that_is_no_text_is_one_error(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    model = onnx.load(path)
    del model.metadata_props[1:]
    content = model.SerializeToString().replace(b'"arch"', b'"\xff\xfech"', 1)
    path.write_bytes(append_digest(content))
    with pytest.raises(FertoolError, match=r"m.onnx: .*not UTF-8"):
        open_predictor(path)


def test_a_graph_for_images_that_are_not_square_is_named_so() -> None:
    with pytest.raises(FertoolError, match="8 x 9, which are not square"):
        foreign_input(Path("m.onnx"), ["batch", 1, 8, 9], KNOWN)
