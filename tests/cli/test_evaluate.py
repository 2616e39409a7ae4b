import json

import numpy as np
import pytest
import torch

from fertool import models
from fertool.cli.evaluate import _log_mean_softmax
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "model.pt"
    spec, module = models.create("micro_expnet", {"width_mult": 0.25}, InputSpec(), CLASSES)
    models.save_model(path, spec, module)
    return path


def write_csv(path, *splits):
    """Seven distinct images a split, the same ones in each."""
    rng = np.random.default_rng(0)
    faces = [" ".join(map(str, rng.integers(0, 256, 2304))) for _ in CLASSES]
    rows = [f"{label},{face},{split}" for split in splits for label, face in enumerate(faces)]
    path.write_text("\n".join(["emotion,pixels,Usage", *rows]) + "\n")
    return path


@pytest.mark.parametrize("splits", [("PrivateTest",), ("Training", "PrivateTest")], ids=["no training", "all copies"])
def test_a_test_set_alone_or_of_copies_alone_has_no_deduplicated_figure(fertool, model, tmp_path, splits):
    data = write_csv(tmp_path / "faces.csv", *splits)
    code, out, err = fertool("eval", model, "--data", data, "--split", "test", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["n"] == 7
    assert found["deduplicated"] is None


def test_views_vote_with_probabilities_even_when_they_round_to_zero():
    sure = np.array([[[0.0, 300.0]], [[0.0, 200.0]]], np.float32)
    voted = _log_mean_softmax(sure)
    assert np.isfinite(voted).all()
    logits = torch.randn(3, 5, 7, dtype=torch.float64)
    np.testing.assert_allclose(_log_mean_softmax(logits.numpy()), logits.softmax(2).mean(0).log().numpy())
