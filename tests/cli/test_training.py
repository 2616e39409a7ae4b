import json
from dataclasses import asdict, fields, replace

import pytest
import torch

from fertool import models
from fertool.cli.options import TrainingOptions
from fertool.cli.prune import _teacher
from fertool.cli.training import Round, TrainingRun, curves, options_of, require_outputs, train_config
from fertool.data.dataset import FaceDataset
from fertool.errors import FertoolError, UsageError
from fertool.losses import ClassificationLoss
from fertool.spec import InputSpec, canonical_json

OTHER_NAMES = {"optimizer": "sgd", "lr_schedule": "plateau", "precision": "bf16", "class_weights": "balanced"}


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
    code, _, err = fertool("prune", tmp_path / "m.pt", "--target-flops", "0.5", "--plot", tmp_path / "a.png")
    assert code == 2
    assert err.startswith("error: --plot")


def run(options, soft_labels=None):
    """A run on seven images: four angry, two happy, one sad."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    images = torch.zeros(7, 1, 48, 48, dtype=torch.uint8)
    data = FaceDataset(images, labels, ("angry", "happy", "sad"), "train", "source", soft_labels)
    return TrainingRun(data, data, options, None, 0, "cpu")


@pytest.mark.parametrize("name", [field.name for field in fields(TrainingOptions)])
def test_every_option_of_training_reaches_the_loop_or_the_loss_or_the_output(name):
    if name in {"resume", "plot"}:
        return
    before = TrainingOptions()
    value = getattr(before, name)
    kinds = {bool: lambda: not value, int: lambda: value + 1, float: lambda: value / 2 + 0.01}
    other = kinds.get(type(value), lambda: OTHER_NAMES[name])()
    changed = []
    for options in (before, replace(before, **{name: other})):
        config = asdict(train_config(options, 0))
        config |= config.pop("augmentation")
        changed.append({**config, **asdict(run(options).loss)})
    name = {"lr_schedule": "schedule"}.get(name, name)
    assert [key for key in changed[0] if changed[0][key] != changed[1][key]] == [name]


def test_the_loss_against_labels_is_the_one_asked_for():
    assert run(TrainingOptions()).loss == ClassificationLoss()
    options = TrainingOptions(label_smoothing=0.1, focal_gamma=2.0, class_weights="balanced")
    assert run(options).loss == ClassificationLoss(0.1, 2.0, (1.0, 2.0, 4.0))
    soft = torch.tensor([[0.5, 0.5, 0.0]] * 6 + [[0.0, 0.0, 1.0]])
    assert run(options, soft).loss.class_weights == (1.0, 1.0, 3.0)


def test_fine_tuning_with_the_old_network_weighs_and_smooths_the_labels_as_asked():
    torch.manual_seed(0)
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad"))
    loss = ClassificationLoss(0.1, 2.0, (1.0, 3.0))
    fingerprint = json.loads(_teacher(spec, module, "cpu", loss).fingerprint)
    assert fingerprint["loss"] == json.loads(canonical_json(asdict(loss)))


@pytest.mark.parametrize(
    ("flag", "value"), [("--freeze-epochs", 3), ("--plateau-factor", 1), ("--label-smoothing", 1), ("--momentum", 1)]
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


def test_rounds_are_curves_of_their_own():
    history = [{"round": 1, "epoch": 1}, {"round": 1, "epoch": 2}, {"round": 2, "epoch": 1}]
    assert curves("s", history) == {"s, round 1": history[:2], "s, round 2": history[2:]}
    assert curves("s", [{"epoch": 1}]) == {"s": [{"epoch": 1}]}


def test_each_round_has_a_state_of_its_own_and_all_go_together(tmp_path):
    plain = replace(run(TrainingOptions()), output=tmp_path / "[s].pt")
    rounds = [replace(plain, round=Round(number, 2, [])) for number in (1, 2)]
    assert [one.state.name for one in (plain, *rounds)] == [
        *("[s].pt.resume", "[s].pt.round-1.resume", "[s].pt.round-2.resume"),
    ]
    for one in (plain, *rounds):
        one.state.write_text("")
    (tmp_path / "other.pt.round-1.resume").write_text("")
    plain.discard()
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt.round-1.resume"]
