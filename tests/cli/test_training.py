import json
import re

import pytest

from fertool import models
from fertool.config.option import values_of
from fertool.config.training import LossConfig, TrainConfig


def test_a_picture_that_cannot_be_written_fails_before_the_training(fertool, tmp_path):
    (tmp_path / "file").write_text("")
    for picture, code, message in (
        (tmp_path / "a.pt", 2, "--plot"),
        (tmp_path / "file" / "a.png", 1, "cannot write"),
    ):
        options = (*TINY, "-o", tmp_path / "a.pt", "--plot", picture)
        found, _, err = fertool("train-teacher", *options)
        assert found == code
        assert message in err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_pruning_without_training_has_nothing_to_plot(fertool, tmp_path):
    code, _, err = fertool(
        "prune", tmp_path / "m.pt", "--target-flops", "0.5", "--plot", tmp_path / "a.png"
    )
    assert code == 2
    assert err.startswith("error: --plot")


def test_options_of_the_loop_and_the_loss_are_flags(fertool, monkeypatch):
    # Narrow help shortens long flags.
    monkeypatch.setenv("COLUMNS", "120")
    _, out, _ = fertool("train-teacher", "--help-all")
    flags = set(re.findall(r"--([a-z0-9-]+)", out))
    names = [*values_of(TrainConfig()), *values_of(LossConfig())]
    assert {name.replace("_", "-") for name in names} <= flags


@pytest.mark.parametrize(
    ("flag", "value"),
    [("--freeze-epochs", 3), ("--plateau-factor", 1), ("--label-smoothing", 1), ("--momentum", 1)],
)
def test_a_bad_value_is_an_error_that_names_the_flag(fertool, tmp_path, flag, value):
    code, _, err = fertool(
        *("train-teacher", "--data", "synth:280", "--arch-arg", "width_mult=0.25", "--epochs", 3),
        *("-o", tmp_path / "o.pt", flag, value),
    )
    assert code == 2
    assert err.splitlines()[-2].startswith(f"error: {flag} {value}")


TINY = (
    "--data",
    "synth:280",
    "--arch",
    "micro_expnet",
    "--arch-arg",
    "width_mult=0.25",
    "--device",
    "cpu",
)


def test_the_epochs_lie_beside_the_model_and_are_not_part_of_it(fertool, tmp_path):
    code, out, err = fertool(
        "train-teacher", *TINY, "-o", tmp_path / "a.pt", "--epochs", 2, "--json"
    )
    assert code == 0, err
    written = json.loads((tmp_path / "a.pt.history.json").read_text())
    assert written == {"file": "a.pt", "history": json.loads(out)["history"]}
    assert [set(record) for record in written["history"]] == [
        {"epoch", "lr", "train_loss", "val_loss", "val_accuracy", "seconds"}
    ] * 2
    code, _, err = fertool(
        "report", tmp_path / "a.pt", tmp_path / "a.pt.history.json", "-o", tmp_path / "r.html"
    )
    assert code == 0, err
    assert "Loss and validation accuracy: a" in (tmp_path / "r.html").read_text()


def test_the_epochs_are_those_of_all_runs_while_a_killed_run_goes_on(
    fertool, tmp_path, monkeypatch
):
    class Killed(BaseException):
        pass

    seen = []

    def watch(_, record):
        seen.append(len(json.loads((tmp_path / "a.pt.history.json").read_text())["history"]))
        if len(seen) == 2:
            raise Killed

    monkeypatch.setattr("fertool.report.console.TrainingProgress.epoch", watch)
    command = ("train-teacher", *TINY, "-o", tmp_path / "a.pt", "--epochs", 3)
    with pytest.raises(Killed):
        fertool(*command)
    # Killed between saving its state and writing down the epoch.
    (tmp_path / "a.pt.history.json").write_text('{"history": []}')
    assert fertool(*command)[0] == 0
    assert seen == [1, 2, 3]


def test_training_says_how_good_its_best_epoch_is_with_and_without_copies(fertool, tmp_path):
    from fertool.data.fer2013_csv import write_csv
    from fertool.data.synth import draw_faces

    images, labels = draw_faces(70, 0, 48)
    images[56:60] = images[:4]
    write_csv(tmp_path / "faces.csv", images, labels, ["train"] * 56 + ["val"] * 14)
    code, _, err = fertool(
        "train-teacher",
        *TINY,
        "--data",
        tmp_path / "faces.csv",
        "-o",
        tmp_path / "a.pt",
        "--epochs",
        2,
    )
    assert code == 0, err
    said = [line for line in err.splitlines() if line.startswith("note: ")]
    metrics = models.load_model(tmp_path / "a.pt")[0].metrics
    assert re.fullmatch(
        r"note: best epoch [12] of 2: accuracy \d.* val, n = 14; ECE 0\.\d{3}", said[-2]
    )
    assert f"{100 * metrics.accuracy:.1f} % [" in said[-2]
    assert re.fullmatch(
        r"note: without 4 copies of training images: .* %.*\], val, n = 10", said[-1]
    )


def test_a_history_that_cannot_be_written_fails_before_the_training(fertool, tmp_path):
    (tmp_path / "a.pt.history.json").mkdir()
    code, _, err = fertool("train-teacher", *TINY, "-o", tmp_path / "a.pt")
    assert code == 1
    assert err.startswith("error: ")
    assert "a.pt.history.json: is a folder" in err
