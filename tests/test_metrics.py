import json
import math
from dataclasses import asdict

import numpy as np
import pytest
import torch

from fertool import metrics
from fertool.errors import FertoolError

NAMES = ("angry", "happy", "sad")


@pytest.fixture
def answered():
    """Truth 0 0 0 0 1 1 1 2, answers 0 0 1 2 1 1 1 0: five of eight right."""
    answers = torch.tensor([0, 0, 1, 2, 1, 1, 1, 0])
    return torch.nn.functional.one_hot(answers, 3).float() * 2, torch.tensor(
        [0, 0, 0, 0, 1, 1, 1, 2]
    )


def test_figures_of_a_small_example_by_hand(answered):
    result = metrics.evaluate_logits(*answered, NAMES)  # type: ignore[call-arg]
    assert (result.n, result.accuracy) == (8, 5 / 8)
    assert result.confusion == ((2, 1, 1), (0, 3, 0), (1, 0, 0))
    assert result.per_class["angry"] == pytest.approx(
        {"precision": 2 / 3, "recall": 1 / 2, "f1": 4 / 7, "n": 4}
    )
    assert result.per_class["sad"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "n": 1}
    assert result.macro_f1 == pytest.approx((4 / 7 + 6 / 7 + 0) / 3)
    assert result.balanced_accuracy == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_an_evaluation_is_json_and_its_core_goes_into_the_model_file(answered):
    result = metrics.evaluate_logits(*answered, NAMES)  # type: ignore[call-arg]
    assert json.loads(json.dumps(asdict(result)))["per_class"]["happy"]["recall"] == 1.0
    assert asdict(metrics.to_metrics(result, "val")) == {
        "split": "val",
        **{key: asdict(result)[key] for key in ("n", "accuracy", "accuracy_ci95", "macro_f1")},
    }


def test_a_class_that_nobody_shows_or_answers_does_not_lower_the_means(answered):
    logits, labels = answered
    wider = torch.cat([logits, torch.full((8, 1), -9.0)], 1)
    with_it = metrics.evaluate_logits(wider, labels, (*NAMES, "contempt"))
    without = metrics.evaluate_logits(logits, labels, NAMES)
    assert with_it.macro_f1 == pytest.approx(without.macro_f1)
    assert with_it.balanced_accuracy == pytest.approx(without.balanced_accuracy)


def test_calibration_error_equals_a_loop_over_the_bins():
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(500, 7)) * 2, generator.integers(0, 7, 500)
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    expected = 0.0
    for index in range(15):
        inside = (confidence > index / 15) & (confidence <= (index + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    result = metrics.evaluate_logits(logits, labels, [str(k) for k in range(7)])
    assert result.ece == pytest.approx(expected, abs=1e-12)


def test_certain_and_right_answers_have_no_calibration_error():
    logits = np.eye(3) * 1000
    assert metrics.evaluate_logits(logits, [0, 1, 2], NAMES).ece == 0


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_logits_that_are_not_numbers_are_an_error(bad):
    with pytest.raises(FertoolError, match="NaN or infinity"):
        metrics.evaluate_logits(np.array([[0.0, bad, 0.0]]), [0], NAMES)


def test_an_empty_set_is_an_error():
    with pytest.raises(FertoolError, match="no images"):
        metrics.evaluate_logits(np.zeros((0, 3)), np.zeros(0, int), NAMES)


@pytest.mark.parametrize(("successes", "n"), [(0, 10), (7, 10), (10, 10), (2500, 3589)])
def test_wilson_limits_are_where_the_score_test_is_just_significant(successes, n):
    low, high = metrics.wilson_ci95(successes, n)
    assert 0 <= low <= successes / n <= high <= 1
    for limit in {low, high} - {0.0, 1.0}:
        z = (successes / n - limit) / math.sqrt(limit * (1 - limit) / n)
        assert abs(z) == pytest.approx(metrics.Z_95, rel=1e-9)


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (0, 5), (3, 12), (12, 3), (6, 6), (40, 61)])
def test_mcnemar_equals_the_binomial_sum(only_a, only_b):
    n = only_a + only_b
    chances = [math.comb(n, k) / 2**n for k in range(n + 1)]
    # Mid-p: half of what is as likely as the table seen, all of what is less likely, on both sides.
    expected = sum(
        chance * (0.5 if k in (only_a, only_b) else 1.0)
        for k, chance in enumerate(chances)
        if abs(k - n / 2) >= abs(only_a - n / 2)
    )
    expected = expected if only_a != only_b else 1.0
    assert metrics.mcnemar_p(only_a, only_b) == pytest.approx(expected, rel=1e-12)


def test_mcnemar_takes_counts_beyond_the_range_of_floats():
    # A normal deviate of 1000 / sqrt(81000) = 3.514 has the two-sided tail 4.4e-4.
    assert metrics.mcnemar_p(40_000, 41_000) == pytest.approx(4.42e-4, rel=0.01)


def test_paired_interval_equals_the_published_example():
    # Newcombe 1998, the table with 36, 12, 2 and 0 pairs, method 10.
    assert metrics.paired_difference_ci95(36, 12, 2, 0) == pytest.approx((0.0569, 0.3404), abs=5e-5)


@pytest.mark.parametrize(
    "shares", [(0.6, 0.15, 0.1, 0.15), (0.3, 0.3, 0.1, 0.3), (0.85, 0.04, 0.03, 0.08)]
)
def test_paired_interval_covers_the_truth_as_often_as_it_says(shares):
    tables = np.random.default_rng(1).multinomial(60, shares, size=2000)
    limits = np.array([metrics.paired_difference_ci95(*map(int, table)) for table in tables])
    truth = shares[1] - shares[2]
    assert 0.93 <= ((limits[:, 0] <= truth) & (truth <= limits[:, 1])).mean() <= 0.99


def test_comparing_says_how_much_better_the_second_is():
    a, b = np.arange(100) < 60, np.arange(100) < 75
    result = metrics.compare_paired(a, b)
    assert (result.n, result.difference) == (100, pytest.approx(0.15))
    assert 0 < result.difference_ci95[0] < 0.15 < result.difference_ci95[1]
    assert result.mcnemar_p == pytest.approx(2**-15)
    swapped = metrics.compare_paired(b, a)
    assert swapped.difference_ci95 == pytest.approx(
        tuple(-x for x in reversed(result.difference_ci95))
    )


def test_comparing_answers_to_different_sets_is_an_error():
    with pytest.raises(FertoolError, match="5 images with predictions on 4"):
        metrics.compare_paired(np.ones(5), np.ones(4))
