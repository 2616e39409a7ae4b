from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto
from onnx_files import CLASSES, example_spec, expected_logits, random_images, write_onnx
from torch import nn

from fertool.config.foreign_files import ForeignModel
from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError
from fertool.registry import ARCHITECTURES
from fertool.runtime.opening import open_predictor
from fertool.spec import InputSpec


def test_a_header_tells_all_about_an_onnx_file(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    predictor = open_predictor(path, threads=1)
    images = random_images(5)
    assert (predictor.runtime, predictor.classes, predictor.input) == (
        "onnxruntime",
        CLASSES,
        InputSpec(1, 8),
    )
    assert (predictor.params, predictor.macs, predictor.digest) == (6, 3, "cd" * 32)
    logits = predictor.logits(images, batch_size=2)
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, expected_logits(images), rtol=1e-5)


def test_torch_and_numpy_images_and_progress(tmp_path: Path) -> None:
    predictor = open_predictor(write_onnx(tmp_path / "m.onnx", spec=example_spec()))
    images = random_images(5)
    seen: list[tuple[int, int]] = []
    from_tensor = predictor.logits(
        torch.from_numpy(images), 2, lambda done, total: seen.append((done, total))
    )
    np.testing.assert_array_equal(from_tensor, predictor.logits(images))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    assert predictor.logits(images[:0]).shape == (0, 3)


def test_a_foreign_file_needs_classes_and_says_so(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "foreign.onnx", size="side")
    with pytest.raises(UsageError, match="without fertool's header") as caught:
        open_predictor(path)
    assert "``classes=a,b,…``" in caught.value.hint
    assert "``input_size=N``" in caught.value.hint
    with pytest.raises(UsageError, match="leaves the image size open"):
        open_predictor(path, foreign=ForeignModel(CLASSES))


@pytest.mark.parametrize(
    ("pixel", "factor"), [(TensorProto.UINT8, 1.0), (TensorProto.FLOAT, 1 / 255)]
)
def test_foreign_uint8_gets_pixels_and_float_gets_0_to_1(
    tmp_path: Path, pixel: int, factor: float
) -> None:
    path = write_onnx(tmp_path / "foreign.onnx", size="side", pixel=pixel)
    predictor = open_predictor(path, foreign=ForeignModel(CLASSES, 8))
    images = random_images(3)
    np.testing.assert_allclose(predictor.logits(images), expected_logits(images, factor), rtol=1e-5)
    assert predictor.params is None
    assert len(predictor.digest) == 64


def test_a_foreign_file_with_a_fixed_batch_gives_the_same_answers(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "foreign.onnx", batch=4)
    predictor = open_predictor(path, foreign=ForeignModel(CLASSES))
    images = random_images(6)
    np.testing.assert_allclose(predictor.logits(images), expected_logits(images), rtol=1e-5)


@pytest.mark.parametrize(
    ("made", "given", "message"),
    [
        ({"size": 8}, {"input_size": 48}, "not ``input_size=48``"),
        ({"size": 8}, {"classes": ("a", "b")}, "3 outputs for 2 classes"),
        ({"channels": "c"}, {}, "the graph's input has shape"),
        ({"pixel": TensorProto.DOUBLE}, {}, r"input is tensor\(double\)"),
    ],
)
def test_what_does_not_fit_a_foreign_graph(
    tmp_path: Path, made: dict[str, object], given: dict[str, object], message: str
) -> None:
    path = write_onnx(tmp_path / "foreign.onnx", **made)  # type: ignore[arg-type]
    with pytest.raises(FertoolError, match=message):
        open_predictor(path, foreign=ForeignModel(**{"classes": CLASSES, **given}))  # type: ignore[arg-type]


def test_files_that_are_no_onnx(tmp_path: Path) -> None:
    whole = write_onnx(tmp_path / "whole.onnx", spec=example_spec()).read_bytes()
    for name, content in (
        ("text", b"not a model"),
        ("empty", b""),
        ("half", whole[: len(whole) // 2]),
    ):
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(content)
        with pytest.raises(
            FertoolError, match=f"{name}.onnx: ONNX Runtime cannot open it"
        ) as caught:
            open_predictor(path)
        assert "\n" not in caught.value.message
        assert "export it again" in caught.value.hint
    with pytest.raises(FertoolError, match="no such file"):
        open_predictor(tmp_path / "missing.onnx")


def test_images_of_another_shape(tmp_path: Path) -> None:
    predictor = open_predictor(write_onnx(tmp_path / "m.onnx", spec=example_spec()))
    with pytest.raises(FertoolError, match="images of shape 2x1x9x9, the model takes Nx1x8x8"):
        predictor.logits(random_images(2, size=9))


def test_a_pt_file_gives_what_the_module_gives(tmp_path: Path) -> None:
    from fertool.models import create, save_model

    @ARCHITECTURES.register("toy_session")
    def toy_session(*, num_classes: int, in_channels: int) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(in_channels, 4, 3),
            nn.BatchNorm2d(4),
            nn.Flatten(),
            nn.Linear(144, num_classes),
        )

    torch.manual_seed(0)
    spec, module = create("toy_session", {}, InputSpec(1, 8), CLASSES)
    spec = save_model(tmp_path / "m.pt", spec, module)
    predictor = open_predictor(tmp_path / "m.pt")
    images = random_images(5)
    with torch.inference_mode():
        wanted = module.eval()(to_input(torch.from_numpy(images), spec.input)).numpy()
    np.testing.assert_allclose(predictor.logits(images, batch_size=2), wanted, rtol=1e-5, atol=1e-6)
    assert (predictor.runtime, predictor.digest) == ("torch", spec.digest)
    assert predictor.params == spec.params


def test_an_onnx_file_runs_without_torch(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    code = (
        "import sys, pathlib, numpy; from fertool.runtime.opening import open_predictor;"
        f"open_predictor(pathlib.Path({str(path)!r})).logits(numpy.zeros((1, 1, 8, 8), 'uint8'));"
        "assert 'torch' not in sys.modules and 'onnx' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


ANOTHER = """
import numpy as np

from fertool.artifact.header import read_spec
from fertool.runtime.predictor import Predictor
from fertool.runtime.runtime import Runtime


class Member(Runtime):
    \"\"\"Says the first class of every image.\"\"\"

    package = "numpy"

    def open(self, path, threads, foreign):
        spec = read_spec(path)

        def prepare(images):
            return lambda: np.eye(len(spec.classes), dtype=np.float32)[np.zeros(len(images), int)]

        return Predictor(path, "first", spec, spec.classes, spec.input, None, prepare)
"""


def test_a_runtime_of_another_package_opens_a_file(tmp_path: Path, install: Any) -> None:
    install("fertool.runtimes", "first", ANOTHER)
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    predictor = open_predictor(path, runtime="first")
    assert predictor.runtime == "first"
    assert (predictor.logits(random_images(3)).argmax(1) == 0).all()
