"""Teachers that are recorded once and then stood for by a file."""

import json
import os
import re

import pytest
import torch

from fertool import models
from fertool.config.distillation import LogitsConfig
from fertool.distillation.cached_logits import load_logits
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
DATA = ("--data", "synth:280")
SMALL = ("--arch-arg", "width_mult=0.25", "--epochs", 1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    path = tmp_path_factory.mktemp("teachers") / "teacher.pt"
    torch.manual_seed(0)
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    models.save_model(path, spec, module)
    return path


@pytest.fixture(scope="module")
def logits(teacher):
    """Two views, turned by up to 10 degrees."""
    from fertool.cli.app import run

    path = teacher.with_name("any name at all")
    own = ("--save-logits", path, "--logit-views", 2, "--rotation", 10, "--epochs", 0)
    assert run([str(part) for part in ("distill", teacher, *DATA, *own)]) == 0
    return path


def test_recording_alone_prints_the_file_and_makes_no_model(
    fertool, teacher, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    own = ("--save-logits", "t.logits", "--logit-views", 0, "--epochs", 0)
    code, out, err = fertool("distill", teacher, *DATA, *own)
    assert code == 0, err
    assert out == "t.logits\n"
    assert ": 224 images, " in err
    assert os.listdir() == ["t.logits"]
    code, out, _ = fertool("distill", teacher, *DATA, *own, "--json")
    assert json.loads(out)["views"] == 0


def test_a_student_of_the_file_is_the_student_of_the_run_that_recorded(fertool, teacher, tmp_path):
    record, first, second = (tmp_path / name for name in ("t.logits", "a.pt", "b.pt"))
    own = ("--save-logits", record, "--logit-views", 2, "--rotation", 10)
    assert fertool("distill", teacher, *DATA, *SMALL, *own, "-o", first)[0] == 0
    code, _, err = fertool("distill", record, *DATA, *SMALL, "-o", second)
    assert code == 0, err
    assert "note: " in err
    assert "changed as they were recorded, with --rotation 10" in err
    assert first.read_bytes() == second.read_bytes()
    spec, _ = models.load_model(second)
    (step,) = spec.provenance
    assert step.options["rotation"] == 10
    assert step.options["logit_views"] == 2
    assert step.inputs["logits.0"] == load_logits(record).spec.digest
    assert step.inputs["teacher.0"] == models.load_model(teacher)[0].digest


def test_a_file_of_a_killed_run_is_not_recorded_again(fertool, teacher, tmp_path, monkeypatch):
    record = tmp_path / "t.logits"
    own = (*DATA, "--save-logits", record, "--logit-views", 1, "--epochs", 0)
    assert fertool("distill", teacher, *own)[0] == 0
    before = record.read_bytes()

    def asked(*arguments, **options):
        raise AssertionError("the teacher was asked again")

    monkeypatch.setattr("fertool.distillation.cached_logits.compute_cached_logits", asked)
    assert fertool("distill", teacher, *own)[0] == 0
    assert record.read_bytes() == before
    for changed in (["--no-resume"], ["--seed", 1], ["--rotation", 3]):
        with pytest.raises(AssertionError, match="asked again"):
            fertool("distill", teacher, *own, *changed)


def test_training_a_teacher_records_it_under_its_own_augmentation(fertool, tmp_path):
    output, record = tmp_path / "t.pt", tmp_path / "t.logits"
    code, out, err = fertool(
        *(
            "train-teacher",
            *DATA,
            *SMALL,
            "--arch",
            "micro_expnet",
            "-o",
            output,
            "--save-logits",
            record,
        ),
        *("--scale", 0.1),
    )
    assert code == 0, err
    assert out == f"{output}\n"
    recording = load_logits(record)
    assert recording.spec.teachers == (models.load_model(output)[0].digest,)
    assert recording.spec.views == LogitsConfig().views == len(recording.logits[0])
    assert recording.views.config.scale == 0.1


def test_a_model_and_a_recording_teach_together(fertool, teacher, logits, tmp_path):
    code, out, err = fertool(
        "distill",
        teacher,
        logits,
        *DATA,
        *SMALL,
        "--rotation",
        10,
        "-o",
        tmp_path / "s.pt",
        "--json",
    )
    assert code == 0, err
    assert set(json.loads(out)["provenance"][0]["inputs"]) == {
        "data",
        "teacher.0",
        "teacher.1",
        "logits.0",
    }


def test_recordings_of_separate_runs_are_merged_into_one_file(fertool, logits, tmp_path):
    torch.manual_seed(1)
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    models.save_model(tmp_path / "other.pt", spec, module)
    other, merged = tmp_path / "other.logits", tmp_path / "all.logits"
    own = ("--save-logits", other, "--logit-views", 2, "--rotation", 10, "--epochs", 0)
    assert fertool("distill", tmp_path / "other.pt", *DATA, *own)[0] == 0
    code, _, err = fertool("distill", logits, other, *DATA, "--save-logits", merged, "--epochs", 0)
    assert code == 0, err
    assert "2 views of 224 images by 2 teachers" in err
    spec = load_logits(merged).spec
    assert len(spec.teachers) == 2
    assert set(spec.provenance[-1].inputs) == {
        *("data", "teacher.0", "teacher.1", "logits.0", "logits.1")
    }
    both = (logits, tmp_path / "other.pt", *DATA, "--save-logits", merged, "--epochs", 0)
    code, _, err = fertool("distill", *both)
    assert code == 2
    assert "beside models\nhint: record the models alone" in err


def test_a_student_of_another_size_may_use_the_file(fertool, logits, tmp_path):
    code, _, err = fertool(
        "distill", logits, *DATA, *SMALL, "--input-size", 32, "-o", tmp_path / "s.pt"
    )
    assert code == 0, err


def test_noise_comes_after_the_views_and_is_not_part_of_the_file(
    fertool, logits, teacher, tmp_path
):
    own, noisy, plain = (tmp_path / name for name in ("own.logits", "noisy.pt", "plain.pt"))
    record = ("--save-logits", own, "--logit-views", 2, "--rotation", 10, "--epochs", 0)
    code, _, err = fertool("distill", teacher, *DATA, *record, "--noise", 1)
    assert code == 0, err
    assert torch.equal(load_logits(own).logits, load_logits(logits).logits)
    code, _, err = fertool("distill", own, *DATA, *SMALL, "--noise", 1, "-o", noisy)
    assert code == 0, err
    assert fertool("distill", own, *DATA, *SMALL, "-o", plain)[0] == 0
    trained = [models.load_model(path)[1].state_dict() for path in (noisy, plain)]
    assert any(not torch.equal(part, trained[1][name]) for name, part in trained[0].items())


def test_show_tells_what_was_recorded(fertool, logits, teacher):
    code, out, _ = fertool("show", logits)
    assert code == 0
    assert "224 of 48 x 48 gray" in out
    assert "rotation=10" in out
    shown = json.loads(fertool("show", logits, "--json")[1])
    assert shown["kind"] == "logits"
    assert shown["teachers"] == [models.load_model(teacher)[0].digest]
    assert shown["images"]["count"] == 224


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["LOGITS", "--rotation", 30], 2, "--rotation 30: .* recorded with --rotation 10"),
        (["LOGITS", "--flip", "0"], 2, "--flip 0: .* recorded with --flip 0.5"),
        (["LOGITS", "--logit-views", 3], 2, "--logit-views 3: .* recorded with 2"),
        (["LOGITS", "--save-logits", "x"], 2, "--save-logits x: .* is a recording already"),
        (["TEACHER", "--logit-views", 3], 2, "--logit-views 3: nothing is recorded"),
        (["TEACHER", "--save-logits", "out.pt"], 2, "--save-logits out.pt: the model goes there"),
        (
            ["TEACHER", "--save-logits", "x", "--method", "feature"],
            2,
            "--save-logits x: --method feature needs",
        ),
        (["LOGITS", "--method", "feature"], 1, "cached logits have no feature maps"),
        (["TEACHER", "--save-logits", "TEACHER"], 1, "the output is also an input"),
        (["LOGITS", "--data", "synth:350"], 1, "logits of 224 training images, the data has 280"),
        (["SHORT"], 1, "SHORT: not a fertool model file"),
        (["FLIPPED"], 1, "FLIPPED: damaged"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_what_can_go_wrong_is_one_line_and_a_hint(
    fertool, teacher, logits, tmp_path, monkeypatch, arguments, code, message
):
    monkeypatch.chdir(tmp_path)
    content = bytearray(logits.read_bytes())
    (tmp_path / "SHORT").write_bytes(content[:2000])
    content[content.index(load_logits(logits).logits.numpy().tobytes())] ^= 1
    (tmp_path / "FLIPPED").write_bytes(content)
    places = {"LOGITS": logits, "TEACHER": teacher}
    data = [] if "--data" in arguments else DATA
    found, out, err = fertool(
        "distill", *(places.get(part, part) for part in arguments), *data, *SMALL, "-o", "out.pt"
    )
    assert found == code, err
    assert out == ""
    *_, error, hint = err.splitlines()
    assert re.search(message, error)
    assert error.startswith("error: ")
    assert hint.startswith("hint: ")
    assert sorted(os.listdir()) == ["FLIPPED", "SHORT"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["TEACHER", "--epochs", 0], "--epochs 0: nothing to do"),
        (
            ["TEACHER", "--epochs", 0, "--save-logits", "x", "-o", "y.pt"],
            "--output y.pt: without training there is none",
        ),
        (
            ["TEACHER", "--epochs", 0, "--save-logits", "x", "--plot", "y.png"],
            "--plot y.png: without training",
        ),
    ],
)
def test_without_training_only_logits_come_out(fertool, teacher, arguments, message):
    code, _, err = fertool(
        "distill", *(teacher if part == "TEACHER" else part for part in arguments), *DATA
    )
    assert code == 2
    assert err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    "command",
    [
        ["eval", *DATA],
        ["report"],
        ["prune", "--target-flops", "0.5"],
        ["export"],
        ["bench"],
        ["quantize", *DATA],
    ],
    ids=lambda command: command[0],
)
def test_where_a_model_is_needed_logits_are_refused(
    fertool, logits, command, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    code, _, err = fertool(command[0], logits, *command[1:])
    assert code == 1
    assert err.startswith(f"error: {logits}: a logits file, not a model\nhint: ")
    assert os.listdir() == []
