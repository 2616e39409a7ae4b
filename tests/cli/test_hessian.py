"""`hessian-sensitivity` as it is typed: what it writes, what it says, and how it goes on."""

import json

import pytest
import torch

from fertool import models
from fertool.hessian import Sensitivity, accumulator, traces, weighted_layers
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "m.pt"
    models.save_model(
        path, *models.create("mobilenet_v3_small", {"width_mult": 0.25}, InputSpec(), CLASSES)
    )
    return path


@pytest.fixture
def measure(fertool, model):
    """Run the command on drawn faces; returns (exit code, stdout, stderr)."""

    def call(*options):
        return fertool(
            "hessian-sensitivity",
            model,
            "--data",
            "synth:70",
            "--trace-images",
            7,
            "--device",
            "cpu",
            *options,
        )

    return call


@pytest.mark.parametrize("method", ["exact", "probe", "hutchinson"])
def test_every_channel_has_both_traces_and_a_picture(measure, model, tmp_path, method):
    output, picture = tmp_path / "s.json", tmp_path / "s.png"
    code, out, err = measure("-o", output, "--method", method, "--probes", 2, "--plot", picture)
    assert code == 0
    assert out.endswith(f"{output}\n")
    assert "note: standard error of the median channel" in err
    spec, module = models.load_model(model)
    found = Sensitivity.from_json(output.read_text(), "s.json")
    counts = {name: len(layer.weight) for name, layer in weighted_layers(module).items()}
    found.require_fit(spec.digest, counts, "s.json", accept=(found.hessian,))
    assert found.hessian == ("cross-entropy" if method == "hutchinson" else "kl")
    assert {layer.name: len(layer.activation_trace) for layer in found.layers} == counts
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "s.json.resume").exists()


def test_a_target_is_worked_for_and_said_when_it_is_out_of_reach(measure, tmp_path):
    _, _, err = measure(
        "-o", tmp_path / "a.json", "--method", "probe", "--target-error", "0.35", "--probes", 2
    )
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["probes"] > 2
    assert f"7 images and {found['probes']} probes" in err
    _, _, err = measure("-o", tmp_path / "b.json", "--target-error", "1e-6", "--max-rounds", 2)
    assert json.loads((tmp_path / "b.json").read_text())["samples"] == 14
    assert "warning: standard error of the median channel" in err
    assert "with 14 images: not 0.0 %; raise --max-rounds" in err


def test_a_killed_run_resumes_unless_told_not_to(measure, tmp_path, monkeypatch):
    output, state, options = (
        tmp_path / "s.json",
        tmp_path / "s.json.resume",
        ("--method", "probe", "--probes", 4),
    )
    assert measure("-o", output, *options)[0] == 0
    undisturbed = output.read_bytes()
    output.unlink()

    def save(*arguments):
        kept(*arguments)
        raise KeyboardInterrupt

    kept = accumulator.save_state
    monkeypatch.setattr(traces, "_SAVE_SECONDS", 0.0)
    monkeypatch.setattr(accumulator, "save_state", save)
    assert measure("-o", output, *options)[0] == 130
    assert state.exists()
    assert not output.exists()
    monkeypatch.setattr(accumulator, "save_state", kept)
    code, _, err = measure("-o", output, *options, "--seed", 1)
    assert code == 1
    assert f"error: {state}: the state of a killed run, but of a run with other options" in err
    assert measure("-o", output, *options)[0] == 0
    assert output.read_bytes() == undisturbed
    assert not state.exists()
    state.write_bytes(b"no state")
    assert measure("-o", output, *options)[0] == 1
    assert measure("-o", output, *options, "--no-resume")[0] == 0
    assert output.read_bytes() == undisturbed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--plot", "OUT"), "--plot OUT: the result goes there"),
        (("--plot", "MODEL"), "MODEL: the output is also an input"),
        (("--target-error", "0"), "--target-error 0.0: must be above 0"),
        (("--max-rounds", "0"), "--max-rounds"),
        (("--method", "lanczos"), "lanczos"),
    ],
)
def test_what_makes_no_sense_is_refused_before_any_work(measure, model, tmp_path, options, said):
    output, before = tmp_path / "s.json", model.read_bytes()
    names = {"OUT": str(output), "MODEL": str(model)}
    code, out, err = measure("-o", output, *(names.get(option, option) for option in options))
    for short, name in names.items():
        said = said.replace(short, name)
    assert (code, out) == (1 if "input" in said else 2, "")
    assert said in err
    assert not output.exists()
    assert model.read_bytes() == before
