"""Accuracy and other figures of a model, and the paired comparison of two on the same images."""

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
"""Bins of the expected calibration error, as in Guo et al. (2017)."""
Z_95 = 1.959963984540054
"""The 97.5 % point of the normal distribution."""


class ClassMetrics(TypedDict):
    """The figures of one class; 0 where they are undefined. `n` is the number of its images."""

    precision: float
    recall: float
    f1: float
    n: int


@dataclass(frozen=True)
class Evaluation:
    """One model on one set of images.

    `confusion` has a row for each true class and a column for each predicted one.
    """

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
    """Two models a and b on the same `n` images.

    `difference` is the accuracy of b minus that of a, with its 95 % interval and McNemar's p.
    """

    n: int
    difference: float
    difference_ci95: tuple[float, float]
    mcnemar_p: float


def evaluate_logits(logits: Any, labels: Any, classes: Sequence[str]) -> Evaluation:
    """Return the figures of logits [N, K] for true class indices [N]; numpy arrays or CPU tensors.

    Macro F1 is the mean over the classes that occur among labels or predictions, balanced accuracy
    the mean recall over those among the labels. Raises FertoolError for an empty set and for NaN or
    infinite logits.
    """
    values = _require_finite(logits)
    truth = np.asarray(labels)
    predictions = values.argmax(1)
    images = len(truth)
    class_count = len(classes)
    # One index for each pair of true and predicted class.
    pairs = np.bincount(truth * class_count + predictions, minlength=class_count * class_count)
    confusion = pairs.reshape(class_count, class_count)
    correct = int(confusion.trace())

    per_class: dict[str, ClassMetrics] = {}
    for index, name in enumerate(classes):
        per_class[name] = _class_metrics(confusion, index)
    f1 = np.array([figures["f1"] for figures in per_class.values()])
    recall = np.array([figures["recall"] for figures in per_class.values()])
    is_labeled = confusion.sum(1) > 0
    occurs = confusion.sum(0) + confusion.sum(1) > 0
    return Evaluation(
        n=images,
        accuracy=correct / images,
        accuracy_ci95=wilson_ci95(correct, images),
        macro_f1=float(f1[occurs].mean()),
        balanced_accuracy=float(recall[is_labeled].mean()),
        ece=_calibration_error(values, predictions == truth),
        per_class=per_class,
        confusion=tuple(tuple(row) for row in confusion.tolist()),
    )


def to_metrics(evaluation: Evaluation, split: str) -> Metrics:
    """Return the part of an evaluation that a model file carries."""
    return Metrics(
        split=split,
        n=evaluation.n,
        accuracy=evaluation.accuracy,
        accuracy_ci95=evaluation.accuracy_ci95,
        macro_f1=evaluation.macro_f1,
    )


def compare_paired(correct_a: Any, correct_b: Any) -> Comparison:
    """Compare two models by which of the same images each classified correctly, booleans [N].

    Raises FertoolError for different numbers of images, and for none.
    """
    a = np.asarray(correct_a, dtype=bool)
    b = np.asarray(correct_b, dtype=bool)
    if a.shape != b.shape or not a.size:
        raise FertoolError(
            f"cannot compare predictions on {a.size} images with predictions on {b.size}",
            "evaluate both on the same split",
        )
    both = int((a & b).sum())
    only_a = int((a & ~b).sum())
    only_b = int((~a & b).sum())
    neither = a.size - both - only_a - only_b
    return Comparison(
        n=a.size,
        difference=(only_b - only_a) / a.size,
        difference_ci95=paired_difference_ci95(
            both=both, only_first=only_b, only_second=only_a, neither=neither
        ),
        mcnemar_p=mcnemar_p(only_a, only_b),
    )


def wilson_ci95(successes: int, n: int) -> tuple[float, float]:
    """Return the 95 % score interval of a proportion (Wilson 1927)."""
    fraction = successes / n
    z2 = Z_95**2
    center = (fraction + z2 / (2 * n)) / (1 + z2 / n)
    variance = fraction * (1 - fraction) / n + z2 / (4 * n * n)
    half_width = Z_95 / (1 + z2 / n) * math.sqrt(variance)
    # At the ends rounding would leave a fraction of 0 or 1 outside of its own interval.
    low = 0.0 if successes == 0 else center - half_width
    high = 1.0 if successes == n else center + half_width
    return low, high


def mcnemar_p(only_a: int, only_b: int) -> float:
    """Return the two-sided mid-p value of McNemar's test.

    The arguments are the numbers of images that exactly one of two models classified correctly. It
    is `2 P(X < m) + P(X = m)` with m the smaller count, X binomial at 1/2, which keeps the nominal
    level where the exact test is too conservative and the asymptotic one too liberal (Fagerland,
    Lydersen and Laake 2013).
    """
    # By symmetry, with half of P(X = m) on either side; the formula would count it twice.
    if only_a == only_b:
        return 1.0
    n = only_a + only_b
    smaller = min(only_a, only_b)
    counts = np.arange(1, smaller + 1)
    # In logarithms, since binomial coefficients overflow for thousands of images.
    log_coefficients = np.concatenate([[0.0], np.cumsum(np.log((n - counts + 1) / counts))])
    probabilities = np.exp(log_coefficients - n * math.log(2))
    return min(1.0, float(2 * probabilities[:-1].sum() + probabilities[-1]))


def ratio_with_ci95(
    numerators: NDArray[np.float64], denominators: NDArray[np.float64]
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the means of two figures [N] of the same images, with its 95 % interval.

    The variance is that of the ratio's linear approximation (Cochran 1977, Sampling Techniques,
    equation 6.13), which needs some hundred images. The denominators' mean must not be 0.
    """
    mean = denominators.mean()
    ratio = float(numerators.mean() / mean)
    residuals = numerators - ratio * denominators
    half = Z_95 * float(np.sqrt((residuals**2).mean() / len(residuals)) / mean)
    return ratio, (max(0.0, ratio - half), ratio + half)


def paired_difference_ci95(
    both: int, only_first: int, only_second: int, neither: int
) -> tuple[float, float]:
    """Return the 95 % interval of the first accuracy minus the second on the same images.

    Newcombe's hybrid score interval with continuity-corrected correlation (Statistics in Medicine
    17, 1998, 2635-2650, method 10): unlike Wald's it keeps its level for small discordant counts
    and stays in [-1, 1].
    """
    n = both + only_first + only_second + neither
    first = (both + only_first) / n
    second = (both + only_second) / n
    low_1, high_1 = wilson_ci95(both + only_first, n)
    low_2, high_2 = wilson_ci95(both + only_second, n)
    phi = _correlation(both, only_first, only_second, neither)
    below = _hypotenuse(first - low_1, high_2 - second, phi)
    above = _hypotenuse(high_1 - first, second - low_2, phi)
    return first - second - below, first - second + above


def _correlation(both: int, only_first: int, only_second: int, neither: int) -> float:
    """Return the phi coefficient of two models' successes, continuity-corrected where positive."""
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
    # Rounding can leave a tiny negative number.
    return math.sqrt(max(0.0, x * x - 2 * phi * x * y + y * y))


def _require_finite(logits: Any) -> NDArray[np.float64]:
    values = np.asarray(logits, dtype=np.float64)
    if not len(values):
        raise FertoolError("there are no images to evaluate", "choose a split that has some")
    if not np.isfinite(values).all():
        raise FertoolError(
            "the model's logits have NaN or infinity", "train it again with a lower ``lr``"
        )
    return values


def _class_metrics(confusion: NDArray[np.int64], index: int) -> ClassMetrics:
    hits = int(confusion[index, index])
    labeled = int(confusion[index].sum())
    predicted = int(confusion[:, index].sum())
    return ClassMetrics(
        precision=_ratio(hits, predicted),
        recall=_ratio(hits, labeled),
        f1=_ratio(2 * hits, labeled + predicted),
        n=labeled,
    )


def _ratio(numerator: int, denominator: int) -> float:
    if denominator == 0:
        return 0.0
    return numerator / denominator


def _calibration_error(logits: NDArray[np.float64], correct: NDArray[np.bool_]) -> float:
    """Return the expected calibration error over equal-width bins (Guo et al. 2017, equation 3)."""
    # The top class has logit 0 after the shift, so its probability is 1 over the sum.
    confidence = 1 / np.exp(logits - logits.max(1, keepdims=True)).sum(1)
    bins = np.ceil(confidence * ECE_BINS).astype(int)
    # Bin 0 stays empty; a bin's gap is the sum over its images, so no division by its size.
    gaps = np.bincount(bins, weights=correct - confidence, minlength=ECE_BINS + 1)
    return float(np.abs(gaps).sum() / len(logits))
