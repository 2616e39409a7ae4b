"""What a choice of profiles by image is worth, against the same shares of the images at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from fertool.gate_spec import RoutingMetrics
from fertool.metrics import Z_95


def measure_routing(
    correct: Any,
    profiles: Any,
    macs: Sequence[int],
    executed: Sequence[Sequence[int]],
    *,
    cross_fitted: bool = False,
) -> RoutingMetrics:
    """Compare a choice of profiles with the same numbers of images sent to them at random.

    `correct` [profiles, N] tells which images each profile classifies correctly, `profiles` [N]
    which one each image got. `macs` are those of each profile alone, `executed` the profiles
    that run for an image, by the one that it got.

    The difference is the covariance of being sent to a profile and of what that profile is worth
    for the image; interval and p-value are those of its mean over images in the normal
    approximation. A permutation test would find too much: a margin sends on those images on which
    networks differ, which makes the difference vary more than a random choice does.
    """
    table = np.asarray(correct, dtype=np.float64)
    chosen = np.asarray(profiles)
    count, images = table.shape
    shares = np.bincount(chosen, minlength=count) / images
    chosen_is_right = table[chosen, np.arange(images)]
    expected = shares @ table
    accuracies = table.mean(1)
    # The second part, of mean 0, is what larger shares of a better profile are worth.
    gains = (chosen_is_right - expected) - (accuracies[chosen] - shares @ accuracies)
    difference = float((chosen_is_right - expected).mean())
    error = float(gains.std()) / math.sqrt(images)
    half_width = Z_95 * error

    costs = np.array([sum(macs[index] for index in run) for run in executed], dtype=np.float64)
    return RoutingMetrics(
        n=images,
        accuracy=float(chosen_is_right.mean()),
        profile_accuracies=tuple(accuracies.tolist()),
        random_accuracy=float(expected.mean()),
        difference=difference,
        difference_ci95=(max(-1.0, difference - half_width), min(1.0, difference + half_width)),
        paired_p=_two_sided_p(difference, error),
        same_macs_accuracy=best_mixture(macs, accuracies.tolist(), float(shares @ costs)),
        cross_fitted=cross_fitted,
    )


def _two_sided_p(difference: float, error: float) -> float:
    # Profiles with the same predictions leave nothing to choose.
    if error <= 1e-12:
        return 1.0
    return math.erfc(abs(difference) / (error * math.sqrt(2)))


def best_mixture(macs: Sequence[int], accuracies: Sequence[float], mean_macs: float) -> float:
    """Return the best accuracy of random images for single profiles at a mean of MACs."""
    best = 0.0
    points = list(zip(macs, accuracies, strict=True))
    for low_macs, low in points:
        if low_macs <= mean_macs:
            best = max(best, low)
        for high_macs, high in points:
            if low_macs <= mean_macs < high_macs:
                share = (mean_macs - low_macs) / (high_macs - low_macs)
                best = max(best, low + share * (high - low))
    return best
