"""`fertool import`: what it writes and says, and the files that it must not touch."""

import json
from pathlib import Path

import pytest
import torch
from importing.hand_written import build

from fertool.inference import eval_mode
from fertool.models import load_model

SOURCE = f"{Path(__file__).parent.parent / 'importing' / 'hand_written.py'}:build"
IMAGES = ("--input-size", 48, "--mean", 0.5, "--std", 0.25)


@pytest.fixture
def program(tmp_path):
    free = ({0: torch.export.Dim("batch", min=1, max=64)},)
    path = tmp_path / "net.pt2"
    torch.export.save(
        torch.export.export(build(), (torch.randn(2, 3, 48, 48),), dynamic_shapes=free), path
    )
    return path


def test_the_file_has_the_network_its_images_and_its_classes(fertool, tmp_path):
    output = tmp_path / "net.pt"
    code, out, err = fertool(
        "import", SOURCE, *IMAGES, "--classes", "bored,engaged,confused", "-o", output
    )
    assert code == 0, err
    assert out.splitlines() == [str(output)]
    assert "of the source's" in err
    assert "can be pruned" in err
    spec, network = load_model(output)
    assert spec.classes == ("bored", "engaged", "confused")
    assert (spec.input.size, spec.input.channels) == (48, 3)
    assert (spec.input.mean, spec.input.std) == ((0.5,) * 3, (0.25,) * 3)
    assert [step.command for step in spec.provenance] == ["import"]
    images = torch.randn(2, 3, 48, 48)
    module = build()
    with torch.no_grad(), eval_mode(network), eval_mode(module):
        torch.testing.assert_close(network(images), module(images), rtol=1e-5, atol=1e-5)


def test_layers_are_listed_on_request_and_in_the_json(fertool, tmp_path):
    code, out, _ = fertool("import", SOURCE, *IMAGES, "--layers", "-o", tmp_path / "net.pt")
    assert code == 0
    assert all(name in out for name in ("stem.0", "depthwise.0", "squeeze.up", "no:"))
    code, out, _ = fertool("import", SOURCE, *IMAGES, "--json", "-o", tmp_path / "net.pt")
    assert code == 0
    told = json.loads(out)
    assert told["import"]["max_abs_diff"] <= 1e-5
    assert {"stem.0", "head"} <= {layer["name"] for layer in told["import"]["layers"]}


def test_without_an_output_the_file_is_named_after_its_source(fertool, program, monkeypatch):
    monkeypatch.chdir(program.parent)
    code, out, _ = fertool("import", program.name, "--mean", 0, "--std", 1)
    assert (code, out) == (0, "net.pt\n")
    assert load_model(program.parent / "net.pt")[0].input.size == 48


def test_a_source_is_never_overwritten(fertool, program):
    content = program.read_bytes()
    code, _, err = fertool("import", program, "--mean", 0, "--std", 1, "-o", program)
    assert code == 1
    assert "the output is also an input" in err
    assert program.read_bytes() == content


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--classes", "a,a,b"), "'a' twice"),
        (("--classes", "a,,b"), "an empty name"),
        (("--input-channels", 2), "1 or 3 channels"),
        (("--mean", "nan"), "of pixels from 0 to 1"),
        (("--mean", "123.7,116.3,103.5"), "of pixels from 0 to 1"),
        (("--mean", "0.5,0.5"), "2 values"),
        (("--mean", "half"), "not numbers"),
        (("--std", "0"), "must be above 0"),
        (("--std", "nan"), "of pixels from 0 to 1"),
    ],
)
def test_values_that_no_network_has_are_refused_before_the_source_is_run(
    fertool, tmp_path, options, says
):
    source = SOURCE.replace(":build", ":failing")
    code, out, err = fertool("import", source, *IMAGES, *options, "-o", tmp_path / "net.pt")
    assert (code, out) == (2, "")
    assert says in err
    assert not (tmp_path / "net.pt").exists()


def test_a_model_file_is_taken_as_it_is(fertool, tmp_path):
    fertool("import", SOURCE, *IMAGES, "-o", tmp_path / "net.pt")
    code, _, err = fertool("import", tmp_path / "net.pt", "-o", tmp_path / "again.pt")
    assert code == 2
    assert "a model file of fertool already" in err


def test_the_function_of_a_python_file_has_to_be_named(fertool, tmp_path):
    code, _, err = fertool(
        "import", SOURCE.removesuffix(":build"), *IMAGES, "-o", tmp_path / "net.pt"
    )
    assert code == 2
    assert "hand_written.py:FUNCTION" in err


def test_an_exported_float_file_comes_back_with_its_pixels(fertool, tmp_path):
    model, exported, again = tmp_path / "net.pt", tmp_path / "net.onnx", tmp_path / "again.pt"
    fertool("import", SOURCE, *IMAGES, "-o", model)
    code, _, err = fertool("export", model, "-o", exported)
    assert code == 0, err
    code, _, err = fertool("import", exported, "-o", again)
    assert code == 0, err
    (spec, network), (first_spec, first) = load_model(again), load_model(model)
    pixels = torch.randint(0, 256, (2, 3, 48, 48)).float()
    # The file prepares its pixels itself: to the network that comes back they are bytes.
    bytes_of = pixels / 255
    with torch.no_grad(), eval_mode(network), eval_mode(first):
        prepared = (bytes_of - 0.5) / 0.25
        given = (bytes_of - spec.input.mean[0]) / spec.input.std[0]
        torch.testing.assert_close(network(given), first(prepared), rtol=1e-4, atol=1e-5)
    assert first_spec.input.size == spec.input.size
    code, _, err = fertool("import", exported, "--mean", 0, "--std", 1, "-o", again)
    assert code == 2
    assert "prepares them itself" in err
