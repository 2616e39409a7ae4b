"""`import fertool`: what a notebook uses."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import fertool as ft
from fertool import models
from fertool.errors import FertoolError, UsageError
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture
def file(tmp_path):
    torch.manual_seed(0)
    spec, module = models.create("nano_resnet", {"width_mult": 0.5}, InputSpec(1, 32), CLASSES)
    path = tmp_path / "m.pt"
    models.save_model(path, spec, module)
    return path


def test_importing_takes_no_time():
    code = "import sys, fertool; fertool.load; dir(fertool); print('torch' in sys.modules)"
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout == "False\n"


@pytest.mark.parametrize("name", ft.__all__)
def test_every_name_is_there_and_documented(name):
    assert getattr(ft, name).__doc__


def test_other_names_are_missing():
    with pytest.raises(AttributeError, match="module 'fertool' has no attribute 'prnue'"):
        importlib.import_module("fertool").prnue  # noqa: B018


def test_a_model_tells_what_it_is(file):
    model = ft.load(file)
    assert (model.classes, model.input.size, model.metrics) == (CLASSES, 32, None)
    assert model.graph.nodes
    assert model.size_bytes == file.stat().st_size
    assert model.save(file.with_name("again.pt")).path.read_bytes() == file.read_bytes()


def test_predictions_are_probabilities_of_images_of_any_size_and_color(file):
    model = ft.load(file)
    images = np.random.default_rng(0).integers(0, 256, (5, 32, 32), dtype=np.uint8)
    probabilities = model.predict(images)
    assert probabilities.shape == (5, 7)
    np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-6)
    with torch.no_grad():
        scale, shift = model.input.scale[0], model.input.zero_point[0]
        pixels = (torch.from_numpy(images).float()[:, None] - shift) * scale
        expected = model.module.eval()(pixels).softmax(1)
    np.testing.assert_allclose(probabilities, expected.numpy(), atol=1e-6)
    gray_as_rgb = np.repeat(images[..., None], 3, axis=3)
    np.testing.assert_allclose(model.predict(gray_as_rgb), probabilities, atol=0.02)
    assert model.predict(np.zeros((2, 50, 40, 3), np.uint8)).shape == (2, 7)
    assert model.predict(images[:0]).shape == (0, 7)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((2, 32, 32)), "must be uint8"),
        (np.zeros((32, 32), np.uint8), "expected"),
        (np.zeros((1, 3, 32, 32), np.uint8), "expected"),
    ],
)
def test_other_arrays_are_refused(file, images, message):
    with pytest.raises(FertoolError, match=message):
        ft.load(file).predict(images)


def test_evaluations_are_those_of_the_command_and_nothing_is_printed(fertool, file, capsys):
    _, out, _ = fertool("eval", file, file, "--data", "synth:140", "--json")
    data = ft.open_data("synth:140")
    report = ft.evaluate([file, file], data)
    assert capsys.readouterr() == ("", "")
    assert json.loads(json.dumps(report.as_dict())) == json.loads(out)
    (alone,) = ft.evaluate(ft.load(file), data, split="test").results
    assert (alone.split, alone.file) == ("test", str(file))


def test_a_module_at_hand_becomes_a_model_that_is_its_own(tmp_path):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 14 * 14, 3)
    )
    model = ft.import_model(
        module,
        classes=("a", "b", "c"),
        input_size=16,
        mean=(0.5,),
        std=(0.25,),
        output=tmp_path / "own.pt",
    )
    assert model.max_abs_diff <= 1e-5
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        expected = module.eval()(images)
        torch.testing.assert_close(model.module.eval()(images), expected)
        for parameter in model.module.parameters():
            parameter.zero_()
        torch.testing.assert_close(module(images), expected)
    assert ft.load(tmp_path / "own.pt").classes == ("a", "b", "c")


def test_wrong_options_are_named_with_the_nearest(file):
    with pytest.raises(UsageError, match="unknown option 'slpit'") as caught:
        ft.evaluate(file, ft.open_data("synth:140"), slpit="val")
    assert "did you mean 'split'" in caught.value.hint


def test_files_take_turns_in_a_benchmark(file):
    result = ft.benchmark([file, file], runs=4, warmup=1, starts=0)
    assert len(result.results) == 2
    assert len(result.comparisons) == 1


def test_no_package_takes_the_name_of_a_function():
    # Importing a package of that name would put it in the function's place.
    package = Path(ft.__file__).parent
    names = {path.stem for path in package.iterdir()}
    assert not names & set(ft.__all__)


def test_a_chain_in_memory_ends_with_the_bytes_of_the_commands(fertool, tmp_path):
    short = ("--epochs", 1, "--batch-size", 32, "--precision", "fp32", "--data", "synth:160")
    data = ("--data", "synth:160")
    network = ("--arch", "micro_expnet", "--arch-arg", "width_mult=0.5", "--input-size", 32)
    names = ("teacher", "student", "pruned", "mixed")
    teacher, student, pruned, mixed = (tmp_path / f"{name}.pt" for name in names)
    for command in (
        ("train-teacher", "-o", teacher, *network, *short),
        ("distill", teacher, "-o", student, *network, *short),
        ("prune", student, "-o", pruned, "--target-flops", 0.5, "--no-bench", *short),
        ("hessian-sensitivity", pruned, "-o", tmp_path / "s.json", "--trace-images", 8, *data),
        (
            *("quantize", pruned, "-o", mixed, "--average-bits", 3, "--no-bench", *data),
            *("--calibration-images", 32, "--sensitivity", tmp_path / "s.json"),
        ),
        ("export", mixed, "-o", tmp_path / "mixed.onnx", *data),
    ):
        code, _, err = fertool(*command)
        assert code == 0, err

    faces = ft.open_data("synth:160")
    training = {"epochs": 1, "batch_size": 32, "precision": "fp32"}
    shape = {"arch": "micro_expnet", "arch_args": {"width_mult": 0.5}, "input_size": 32}
    model = ft.distill(ft.train(faces, **shape, **training), faces, **shape, **training)
    small = ft.prune(model, faces, flops=0.5, bench=False, **training)
    traces = ft.sensitivity(small, faces, trace_images=8)
    integers = ft.quantize(
        small, faces, average_bits=3, sensitivity=traces, calibration_images=32, bench=False
    )
    assert integers.save(tmp_path / "again.pt").path.read_bytes() == mixed.read_bytes()
    ft.export(integers, tmp_path / "again.onnx", data=faces)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "mixed.onnx").read_bytes()


def test_pictures_are_options_as_at_the_command_line(file, tmp_path):
    picture = tmp_path / "widths.png"
    ft.prune(ft.load(file), flops=0.5, bench=False, plot_widths=picture)
    assert picture.read_bytes().startswith(b"\x89PNG")
    with pytest.raises(UsageError, match="``plot``: without ``epochs``"):
        ft.prune(ft.load(file), flops=0.5, bench=False, plot=picture)
