"""`show` tells a stranger how to use a file: the program that it prints runs when it is pasted."""

import ast
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

import fertool as ft
from fertool import models
from fertool.spec import InputSpec

CLASSES = ("angry", 'un"usual', "it's")
OPTIONS = ["--no-simplify"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model file of a network of colors, with a temperature."""
    path = tmp_path_factory.mktemp("model") / "it's a model.pt"
    input = InputSpec(3, 32, (0.5,) * 3, (0.25,) * 3)
    spec, module = models.create("nano_resnet", {"width_mult": 0.25}, input, CLASSES)
    models.save_model(path, replace(spec, temperature=0.05), module)
    return path


@pytest.fixture
def picture(tmp_path):
    """The picture that the program reads; returns its pixels."""
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (61, 87, 3), dtype=np.uint8)
    # Without loss under the suffix that the program has.
    Image.fromarray(pixels).save(tmp_path / "face.jpg", format="PNG")
    return pixels


def pasted(text, folder):
    """Run the program at the end of what `show` has printed; returns what it prints."""
    start = min(text.index(word) for word in ("import fertool\n", "import numpy") if word in text)
    code = text[start:]
    assert len(code.strip().splitlines()) <= 12
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True
    )
    return ast.literal_eval(done.stdout)


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".pt", None),
        (".onnx", []),
        (".onnx", ["--with-preprocessing", "--with-softmax"]),
        (".onnx", ["--with-preprocessing", "--crop-layout", "nchw"]),
        (".ort", ["--with-softmax"]),
        (".ptl", []),
    ],
)
def test_the_program_gives_the_probabilities_of_predict(
    fertool, model, picture, tmp_path, suffix, options
):
    path = model
    if options is not None:
        path = tmp_path / f"made{suffix}"
        code, _, err = fertool("export", model, "-o", path, *OPTIONS, *options)
        assert code == 0, err
    code, out, _ = fertool("show", path)
    assert code == 0
    found = pasted(out, tmp_path)
    assert tuple(found) == CLASSES
    expected = ft.load(model).predict(picture[None])[0]
    # Model.predict resizes arrays without rounding between rows and columns.
    np.testing.assert_allclose(list(found.values()), expected, atol=0.02)
    told = json.loads(fertool("show", path, "--json")[1])
    assert told["contract"]["classes"] == list(CLASSES)
    assert told["snippet"] in out


def test_gray_crops_are_as_good(fertool, model, picture, tmp_path):
    path = tmp_path / "m.onnx"
    options = ["--with-preprocessing", "--crop-channels", 1, "--with-softmax"]
    assert fertool("export", model, "-o", path, *OPTIONS, *options)[0] == 0
    out = fertool("show", path)[1]
    assert "NHWC, gray, pixels from 0 to 255, any height and width" in out
    gray = np.asarray(Image.fromarray(picture).convert("L"))
    expected = ft.load(model).predict(gray[None])[0]
    np.testing.assert_allclose(list(pasted(out, tmp_path).values()), expected, atol=0.02)


def test_eval_and_predict_take_such_files_like_others(fertool, model, tmp_path):
    files = [tmp_path / "plain.onnx", tmp_path / "crops.onnx"]
    assert fertool("export", model, "-o", files[0], *OPTIONS)[0] == 0
    options = ["--with-preprocessing", "--with-softmax"]
    assert fertool("export", model, "-o", files[1], *OPTIONS, *options)[0] == 0
    folder = tmp_path / "data"
    generator = np.random.default_rng(1)
    for name in ("angry", "it's"):
        (folder / "val" / name).mkdir(parents=True)
        for index in range(6):
            pixels = generator.integers(0, 256, (50, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / "val" / name / f"{index}.png")
    code, out, err = fertool("eval", *files, "--data", folder, "--json")
    assert code == 0, err
    plain, crops = json.loads(out)["results"]
    for key in ("n", "accuracy", "confusion"):
        assert plain[key] == crops[key]
    assert plain["ece"] == pytest.approx(crops["ece"], abs=1e-4)

    picture = folder / "val" / "angry" / "0.png"
    (one,), (other,) = (list(ft.predict(file, picture, detect=False)) for file in files)
    assert one.faces[0].probabilities == pytest.approx(other.faces[0].probabilities, abs=1e-4)


def test_layers_and_logits_are_shown_as_before(fertool, model):
    code, out, _ = fertool("show", model, "--layers")
    assert code == 0
    assert "conv2d" in out
