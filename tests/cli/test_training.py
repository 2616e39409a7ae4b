import json
import re
from dataclasses import asdict, replace

import pytest
import torch

from fertool import models
from fertool.cli.options import TrainingOptions
from fertool.cli.recovery import recovery
from fertool.cli.training import Round, TrainingRun, options_of, require_outputs
from fertool.config.option import values_of
from fertool.config.training import LossConfig, TrainConfig
from fertool.data.dataset import FaceDataset
from fertool.errors import FertoolError, UsageError
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss
from fertool.spec import InputSpec


def test_a_picture_that_cannot_be_written_fails_before_the_training(tmp_path):
    output, source = tmp_path / "a.pt", tmp_path / "data.csv"
    source.write_text("")
    require_outputs(output, TrainingOptions(plot=tmp_path / "a.png"), source)
    with pytest.raises(UsageError, match="--plot"):
        require_outputs(output, TrainingOptions(plot=output), source)
    with pytest.raises(FertoolError, match="also an input"):
        require_outputs(output, TrainingOptions(plot=source), source)
    with pytest.raises(FertoolError, match="cannot write"):
        require_outputs(output, TrainingOptions(plot=source / "a.png"), source)


def test_pruning_without_training_has_nothing_to_plot(fertool, tmp_path):
    code, _, err = fertool(
        "prune", tmp_path / "m.pt", "--target-flops", "0.5", "--plot", tmp_path / "a.png"
    )
    assert code == 2
    assert err.startswith("error: --plot")


def run(options, soft_labels=None):
    """A run on seven images: four angry, two happy, one sad."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    images = torch.zeros(7, 1, 48, 48, dtype=torch.uint8)
    data = FaceDataset(images, labels, ("angry", "happy", "sad"), "train", "source", soft_labels)
    return TrainingRun(data, data, options, None, 0, "cpu")


def test_options_of_the_loop_and_the_loss_are_flags(fertool):
    _, out, _ = fertool("train-teacher", "--help")
    flags = set(re.findall(r"--([a-z0-9-]+)", out))
    names = [*values_of(TrainConfig()), *values_of(LossConfig())]
    assert {name.replace("_", "-") for name in names} <= flags


def test_the_loss_against_labels_is_the_one_asked_for():
    assert run(TrainingOptions()).loss == ClassificationLoss()
    options = TrainingOptions(loss=LossConfig(0.1, 2.0, "balanced"))
    assert run(options).loss == ClassificationLoss(0.1, 2.0, (1.0, 2.0, 4.0))
    soft = torch.tensor([[0.5, 0.5, 0.0]] * 6 + [[0.0, 0.0, 1.0]])
    assert run(options, soft).loss.class_weights == (1.0, 1.0, 3.0)


def test_fine_tuning_with_the_old_network_weighs_and_smooths_the_labels_as_asked():
    torch.manual_seed(0)
    spec, module = models.create(
        "micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad")
    )
    training = run(TrainingOptions(loss=LossConfig(0.1, 2.0, "balanced")))
    fingerprint = json.loads(recovery((spec, module), training, distill=True).fingerprint)
    assert fingerprint["loss"] == json.loads(canonical_json(asdict(training.loss)))


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


def test_provenance_does_not_tell_where_the_picture_went(tmp_path):
    assert options_of(TrainingOptions(plot=tmp_path / "a.png")) == options_of(TrainingOptions())


def test_each_round_has_a_state_of_its_own_and_all_go_together(tmp_path):
    plain = replace(run(TrainingOptions()), output=tmp_path / "[s].pt")
    rounds = [replace(plain, round=Round(number, f"round {number}/2", [])) for number in (1, 2)]
    assert [one.state.name for one in (plain, *rounds)] == [
        *("[s].pt.resume", "[s].pt.round-1.resume", "[s].pt.round-2.resume"),
    ]
    for one in (plain, *rounds):
        one.state.write_text("")
    (tmp_path / "other.pt.round-1.resume").write_text("")
    plain.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt.round-1.resume"]


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
