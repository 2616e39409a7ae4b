import json

import pytest
import torch

from fertool import models
from fertool.cli.options import TrainingOptions
from fertool.cli.prune import _teacher
from fertool.cli.training import options_of, require_outputs
from fertool.errors import FertoolError, UsageError
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
    code, _, err = fertool("prune", tmp_path / "m.pt", "--target-flops", "0.5", "--plot", tmp_path / "a.png")
    assert code == 2
    assert err.startswith("error: --plot")


def test_fine_tuning_smooths_the_labels_as_asked():
    torch.manual_seed(0)
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), ("happy", "sad"))
    objective = _teacher(spec, module, "cpu", 0.1)
    assert json.loads(objective.fingerprint)["label_smoothing"] == 0.1


def test_provenance_does_not_tell_where_the_picture_went(tmp_path):
    assert options_of(TrainingOptions(plot=tmp_path / "a.png")) == options_of(TrainingOptions())
