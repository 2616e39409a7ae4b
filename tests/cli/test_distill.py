import json

import pytest
import torch

from fertool import models
from fertool.config.distillation import DistillationConfig
from fertool.config.option import applicable
from fertool.errors import UsageError
from fertool.report.console import TrainingProgress
from fertool.spec import InputSpec
from fertool.workflows.rounds import round_seed

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
STUDENT = (
    "--data",
    "synth:140",
    "--arch-arg",
    "width_mult=0.25",
    "--input-size",
    32,
    "--device",
    "cpu",
)
ITERATIVE = (*STUDENT, "--method", "iterative", "--rounds", 2, "--epochs", 2)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """Untrained teachers: one like the student but for its classes' order, and another."""
    folder = tmp_path_factory.mktemp("teachers")
    for name, arch, classes in (
        ("alike", "micro_expnet", CLASSES),
        ("other", "resnet18", CLASSES[::-1]),
    ):
        torch.manual_seed(len(name))
        spec, module = models.create(arch, {"width_mult": 0.25}, InputSpec(size=32), classes)
        models.save_model(folder / f"{name}.pt", spec, module)
    return folder


def kill_at(monkeypatch, count):
    """Interrupt at the end of the n-th epoch."""
    epochs, report = [], TrainingProgress.epoch

    def epoch(self, record):
        report(self, record)
        epochs.append(record)
        if len(epochs) == count:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "epoch", epoch)


def train(fertool, *arguments):
    code, out, err = fertool("distill", *arguments, "--json")
    assert code == 0, err
    return json.loads(out), err


@pytest.fixture(scope="module")
def iterative(teachers, tmp_path_factory):
    """An undisturbed run of two rounds."""
    from contextlib import redirect_stderr, redirect_stdout
    from io import StringIO

    from fertool.cli.app import run

    path = tmp_path_factory.mktemp("iterative") / "s.pt"
    with redirect_stdout(StringIO()) as out, redirect_stderr(StringIO()) as err:
        arguments = (
            "distill",
            teachers / "alike.pt",
            *ITERATIVE,
            "-o",
            path,
            "--plot",
            path.with_suffix(".png"),
        )
        assert run([str(argument) for argument in (*arguments, "--json")]) == 0, err.getvalue()
    return path, json.loads(out.getvalue()), err.getvalue()


def test_rounds_are_told_written_down_and_the_best_is_kept(iterative):
    path, printed, said = iterative
    history = printed["history"]
    assert [(record["round"], record["epoch"]) for record in history] == [
        (1, 1),
        (1, 2),
        (2, 1),
        (2, 2),
    ]
    assert "round 2/2  epoch 1/2" in said
    best = max(history, key=lambda record: (record["val_accuracy"], -record["val_loss"]))
    assert f"round {best['round']} of 2 is the best" in said
    assert printed["metrics"]["accuracy"] == pytest.approx(best["val_accuracy"])
    (step,) = printed["provenance"]
    assert (step["options"]["method"], step["options"]["rounds"], step["seed"]) == (
        "iterative",
        2,
        0,
    )
    assert not list(path.parent.glob("*.resume"))
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_killed_run_goes_on_in_its_round_and_ends_with_the_same_bytes(
    iterative, teachers, fertool, tmp_path, monkeypatch, epochs
):
    undisturbed, printed, _ = iterative
    arguments = (teachers / "alike.pt", *ITERATIVE, "-o", tmp_path / "s.pt")
    with monkeypatch.context() as patch:
        kill_at(patch, epochs)
        assert fertool("distill", *arguments)[0] == 130
    again, said = train(fertool, *arguments)
    assert said.count("  epoch ") == 4 - epochs
    assert (tmp_path / "s.pt").read_bytes() == undisturbed.read_bytes()
    assert without_times(again["history"]) == without_times(printed["history"])
    assert [path.name for path in tmp_path.iterdir() if "resume" in path.name] == []


def without_times(history):
    return [{**record, "seconds": 0} for record in history]


def test_the_first_student_starts_from_its_teacher_as_far_as_that_goes(
    fertool, iterative, teachers, tmp_path
):
    _, _, said = iterative
    _, alike = models.load_model(teachers / "alike.pt")
    layers = len({name.rpartition(".")[0] for name in alike.state_dict()})
    assert f"the student starts with {layers} of its {layers} layers" in said
    once = (*STUDENT, "--method", "iterative", "--rounds", 1, "--epochs", 1)
    _, said = train(fertool, teachers / "other.pt", *once, "-o", tmp_path / "a.pt")
    assert f"the student starts with 0 of its {layers} layers" in said
    _, said = train(
        fertool,
        teachers / "other.pt",
        *once,
        "--init",
        teachers / "alike.pt",
        "-o",
        tmp_path / "b.pt",
    )
    assert "the student starts" not in said


def test_features_are_matched_and_a_killed_run_keeps_what_matches_them(
    fertool, teachers, tmp_path, monkeypatch
):
    arguments = (
        teachers / "other.pt",
        *STUDENT,
        "--method",
        "feature",
        "--epochs",
        2,
        "--match-depths",
        2,
        "--gamma",
        1,
    )
    printed, said = train(fertool, *arguments, "-o", tmp_path / "a.pt")
    assert said.count(" is matched with layer") == 2
    options = printed["provenance"][0]["options"]
    assert {name: options[name] for name in ("beta", "gamma", "match_depths")} == {
        "beta": 1.0,
        "gamma": 1.0,
        "match_depths": 2,
    }
    _, module = models.load_model(tmp_path / "a.pt")
    assert (
        module.state_dict().keys()
        == models.load_model(teachers / "alike.pt")[1].state_dict().keys()
    )
    with monkeypatch.context() as patch:
        kill_at(patch, 1)
        assert fertool("distill", *arguments, "-o", tmp_path / "b.pt")[0] == 130
    train(fertool, *arguments, "-o", tmp_path / "b.pt")
    assert (tmp_path / "b.pt").read_bytes() == (tmp_path / "a.pt").read_bytes()


def test_a_network_without_maps_is_one_error(fertool, teachers, tmp_path, monkeypatch):
    monkeypatch.setattr("fertool.distillation.methods.feature.find_stages", lambda module: ())
    code, _, err = fertool(
        *(
            "distill",
            teachers / "other.pt",
            *STUDENT,
            "--method",
            "feature",
            "-o",
            tmp_path / "o.pt",
        )
    )
    assert code == 1
    assert err.splitlines()[-2].startswith(
        "error: --method feature: the student has no inner feature maps"
    )


@pytest.mark.parametrize(
    ("method", "flag", "value", "belongs_to"),
    [
        ("kd", "--rounds", 3, "iterative"),
        ("feature", "--rounds", 3, "iterative"),
        ("kd", "--beta", 1.0, "feature"),
        ("kd", "--gamma", 0.0, "feature"),
        ("iterative", "--match-depths", 2, "feature"),
    ],
)
def test_an_option_of_another_method_is_refused_at_once(
    fertool, tmp_path, method, flag, value, belongs_to
):
    code, _, err = fertool(
        "distill", tmp_path / "t.pt", "--data", "synth:140", "--method", method, flag, value
    )
    assert code == 2
    assert err.startswith(f"error: {flag} {value}: --method {method} has none")
    assert f"add --method {belongs_to}" in err


def test_options_of_the_method_have_their_defaults():
    assert applicable(DistillationConfig()) == {}
    assert applicable(DistillationConfig(method="feature", gamma=0.5)) == {
        "beta": 1.0,
        "gamma": 0.5,
        "match_depths": 4,
    }
    assert applicable(DistillationConfig(method="iterative")) == {"rounds": 3}
    with pytest.raises(UsageError):
        DistillationConfig(rounds=1)


def test_rounds_have_seeds_of_their_own():
    seeds = [round_seed(seed, number) for seed in (0, 1) for number in (1, 2, 3)]
    assert len(set(seeds)) == 6
    assert (round_seed(0, 1), round_seed(7, 1)) == (0, 7)
