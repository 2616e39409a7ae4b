import numpy as np
import pytest
import torch

from fertool.config.corruptions import CORRUPTIONS
from fertool.metrics import ratio_with_ci95
from fertool.workflows.corruptions import evaluate_corruptions

IMAGES = torch.arange(400, dtype=torch.uint8).view(400, 1, 1, 1).expand(400, 1, 12, 12)
CLEAN = np.arange(400) % 4 < 3


def measure(names, clean=CLEAN):
    """A model that loses every sixth of what it knew, whatever is done to the images."""
    asked = []

    def is_correct(changed):
        asked.append(changed)
        return clean & (np.arange(400) % 6 != 0)

    done = []
    found = evaluate_corruptions(
        IMAGES, clean, is_correct, names, 3, lambda *progress: done.append(progress)
    )
    assert len(asked) == 5 * len(names)
    assert done[-1] == (5 * len(names) * 400, 5 * len(names) * 400)
    return found


def test_every_level_stands_against_the_clean_images():
    found = measure(("noise", "blur"))
    assert list(found.by_name) == ["noise", "blur"]
    level = found.by_name["noise"].levels[1]
    lost = (CLEAN & (np.arange(400) % 6 == 0)).sum()
    assert (level.strength, level.n) == (10, 400)
    assert level.accuracy == pytest.approx((300 - lost) / 400)
    assert level.relative_accuracy == pytest.approx(1 - lost / 300)
    assert level.difference == pytest.approx(-lost / 400)
    low, high = level.difference_ci95
    assert low < level.difference < high < 0
    assert found.mean.levels == 10
    assert found.mean.relative_accuracy == pytest.approx(1 - lost / 300)
    # Not all of the eight were measured.
    assert found.reference is None


def test_the_reference_mean_is_that_of_the_eight():
    found = measure(tuple(CORRUPTIONS))
    assert (found.mean.levels, found.reference.levels) == (40, 8)
    low, high = found.reference.relative_accuracy_ci95
    assert low < found.reference.relative_accuracy < high


def test_a_model_that_knows_nothing_has_no_relative_accuracy():
    found = measure(("jpeg",), np.zeros(400, bool))
    assert (found.mean, found.reference, found.by_name["jpeg"].mean) == (None, None, None)
    assert found.by_name["jpeg"].levels[0].relative_accuracy is None


def test_the_interval_of_a_ratio_has_the_true_one_in_it_as_often_as_it_says():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(400):
        clean = rng.random(500) < 0.7
        kept = clean & (rng.random(500) < 0.8)
        _, (low, high) = ratio_with_ci95(kept.astype(float), clean.astype(float))
        hits += low <= 0.8 <= high
    assert 0.92 < hits / 400 < 0.98
