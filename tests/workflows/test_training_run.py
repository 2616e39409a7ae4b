import json
from dataclasses import asdict, replace

import torch

from fertool import models
from fertool.config.training import LossConfig, TrainConfig
from fertool.data.dataset import FaceDataset
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss
from fertool.spec import InputSpec
from fertool.workflows.model import Model
from fertool.workflows.recovery import recovery_objective
from fertool.workflows.training_run import Round, TrainingRun


def run(loss=LossConfig(), soft_labels=None):
    """A run on seven images: four angry, two happy, one sad."""
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2])
    images = torch.zeros(7, 1, 48, 48, dtype=torch.uint8)
    data = FaceDataset(images, labels, ("angry", "happy", "sad"), "train", "source", soft_labels)
    return TrainingRun(data, data, TrainConfig(), loss)


def test_the_loss_against_labels_is_the_one_asked_for():
    assert run().loss == ClassificationLoss()
    config = LossConfig(0.1, 2.0, "balanced")
    assert run(config).loss == ClassificationLoss(0.1, 2.0, (1.0, 2.0, 4.0))
    soft = torch.tensor([[0.5, 0.5, 0.0]] * 6 + [[0.0, 0.0, 1.0]])
    assert run(config, soft).loss.class_weights == (1.0, 1.0, 3.0)


def test_fine_tuning_with_the_old_network_weighs_and_smooths_the_labels_as_asked():
    torch.manual_seed(0)
    spec, module = models.create(
        "micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad")
    )
    training = run(LossConfig(0.1, 2.0, "balanced"))
    fingerprint = json.loads(
        recovery_objective(Model(spec, module), training, distill=True).fingerprint
    )
    assert fingerprint["loss"] == json.loads(canonical_json(asdict(training.loss)))


def test_each_round_has_a_state_of_its_own_and_all_go_together(tmp_path):
    plain = replace(run(), output=tmp_path / "[s].pt")
    rounds = [replace(plain, round=Round(number, f"round {number}/2", [])) for number in (1, 2)]
    assert [one.state.name for one in (plain, *rounds)] == [
        *("[s].pt.resume", "[s].pt.round-1.resume", "[s].pt.round-2.resume"),
    ]
    for one in (plain, *rounds):
        one.state.write_text("")
    (tmp_path / "other.pt.round-1.resume").write_text("")
    plain.discard_states()
    assert [path.name for path in tmp_path.iterdir()] == ["other.pt.round-1.resume"]
