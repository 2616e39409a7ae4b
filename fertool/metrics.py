"""How good the answers are: figures of one model, and the paired comparison of two on the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from fertool.errors import FertoolError
from fertool.spec import Metrics

ECE_BINS = 15
Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


class ClassMetrics(TypedDict):
    """The figures of one class; 0 where a division by zero leaves them undefined. `n` counts its true images."""

    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of images; `confusion` has a row for each true class, a column for each answer."""

    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    macro_f1: float
    balanced_accuracy: float
    ece: float
    per_class: dict[str, ClassMetrics]
    confusion: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Comparison:
    """Two models on the same `n` images: the accuracy of b less that of a, its 95 % interval, and McNemar's p."""

    n: int
    difference: float
    difference_ci95: tuple[float, float]
    mcnemar_p: float


def evaluate_logits(logits: Any, labels: Any, classes: Sequence[str]) -> Evaluation:
    """Return the figures of logits [N, K] against true class indices [N]; numpy arrays or CPU tensors.

    Macro F1 is the mean over the classes that occur among labels or answers, balanced accuracy the mean recall over
    those among the labels. Raises FertoolError for an empty set and for NaN or infinite logits.
    """
    values, truth = _checked(logits), np.asarray(labels)
    answers = values.argmax(1)
    size = len(classes)
    confusion = np.bincount(truth * size + answers, minlength=size * size).reshape(size, size)
    correct = int(confusion.trace())
    per_class = {name: _class_metrics(confusion, index) for index, name in enumerate(classes)}
    seen = confusion.sum(0) + confusion.sum(1) > 0
    f1 = np.array([figures["f1"] for figures in per_class.values()])
    recall = np.array([figures["recall"] for figures in per_class.values()])
    return Evaluation(
        n=len(truth),
        accuracy=correct / len(truth),
        accuracy_ci95=wilson_ci95(correct, len(truth)),
        macro_f1=float(f1[seen].mean()),
        balanced_accuracy=float(recall[confusion.sum(1) > 0].mean()),
        ece=_calibration_error(values, answers == truth),
        per_class=per_class,
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
    )


def to_metrics(evaluation: Evaluation, split: str) -> Metrics:
    """Return the part of an evaluation that a model file carries."""
    return Metrics(
        split, evaluation.n, evaluation.accuracy, evaluation.accuracy_ci95, evaluation.macro_f1
    )


def compare_paired(correct_a: Any, correct_b: Any) -> Comparison:
    """Compare two models by which of the same images [N] each got right (booleans)."""
    a, b = np.asarray(correct_a, dtype=bool), np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or not a.size:
        raise FertoolError(
            f"cannot compare answers to {a.size} images with answers to {b.size}",
            "evaluate both on the same split",
        )
    both, only_a, only_b = int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum())
    return Comparison(
        n=a.size,
        difference=(only_b - only_a) / a.size,
        difference_ci95=paired_difference_ci95(
            both, only_b, only_a, a.size - both - only_a - only_b
        ),
        mcnemar_p=mcnemar_p(only_a, only_b),
    )


def wilson_ci95(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927)."""
    share, z2 = successes / n, Z_95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z_95 / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    # At the ends rounding would leave a share of 0 or 1 outside its own interval.
    return (0.0 if successes == 0 else middle - half, 1.0 if successes == n else middle + half)


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the two-sided mid-p value of McNemar's test from the images that exactly one of two models got right.

    `2 P(X < m) + P(X = m)` with m the smaller count, X binomial at 1/2: keeps the nominal level where the exact test
    is too cautious and the asymptotic one too bold (Fagerland, Lydersen and Laake 2013).
    """
    n, smaller = only_a + only_b, min(only_a, only_b)
    steps = np.arange(1, smaller + 1)
    logs = np.concatenate([[0.0], np.cumsum(np.log((n - steps + 1) / steps))]) - n * math.log(2)
    probabilities = np.exp(logs)
    return (
        min(1.0, float(2 * probabilities[:-1].sum() + probabilities[-1]))
        if only_a != only_b
        else 1.0
    )


def paired_difference_ci95(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, float]:
    """Return the 95 % interval of `first's share - second's share` on paired answers.

    Newcombe's hybrid score interval with continuity-corrected correlation (Statistics in Medicine 17, 1998,
    2635-2650, method 10): unlike Wald's it keeps its level for small discordant counts and stays in [-1, 1].
    """
    n = both + only_first + only_second + neither
    first, second = (both + only_first) / n, (both + only_second) / n
    low_1, high_1 = wilson_ci95(both + only_first, n)
    low_2, high_2 = wilson_ci95(both + only_second, n)
    phi = _correlation(both, only_first, only_second, neither)
    below = _hypotenuse(first - low_1, high_2 - second, phi)
    above = _hypotenuse(high_1 - first, second - low_2, phi)
    return first - second - below, first - second + above


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    n = both + only_first + only_second + neither
    margins = (
        (both + only_first)
        * (only_second + neither)
        * (both + only_second)
        * (only_first + neither)
    )
    if margins == 0:
        return 0.0
    product = both * neither - only_first * only_second
    if product > 0:
        return max(product - n / 2, 0) / math.sqrt(margins)
    return product / math.sqrt(margins)


def _hypotenuse(x: float, y: float, phi: float) -> float:
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def _checked(logits: Any) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    if not len(values):
        raise FertoolError("there are no images to evaluate", "choose a split that has some")
    if not np.isfinite(values).all():
        raise FertoolError("the model answers NaN or infinity", "train it again with a lower --lr")
    return values


def _class_metrics(confusion: NDArray[np.int64], index: int) -> ClassMetrics:
    hits, true, answered = (
        int(x) for x in (confusion[index, index], confusion[index].sum(), confusion[:, index].sum())
    )
    return ClassMetrics(
        precision=hits / answered if answered else 0.0,
        recall=hits / true if true else 0.0,
        f1=2 * hits / (true + answered) if true + answered else 0.0,
        n=true,
    )


def _calibration_error(logits: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Expected calibration error: |accuracy - confidence| over equal-width bins (Guo et al. 2017, equation 3)."""
    # The top class has logit 0 after the shift, so its probability is 1 over the sum.
    confidence = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
    bins = np.ceil(confidence * ECE_BINS).astype(int)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS + 1)
    return float(np.abs(gaps).sum() / len(logits))
