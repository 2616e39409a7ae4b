"""What a choice of profiles by image is worth, against the same shares of the images at random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
    which one answers each image. `macs` are those of each profile alone, `executed` the profiles
    that run for an image, by the one that answers it.

    Where the profiles were handed out at random, the number of right answers would have an exact
    mean and variance over all permutations of the images (Hoeffding 1951, theorem 2); its
    distribution is near normal. Only images on which profiles differ count in it.
    """
    table = np.asarray(correct, dtype=np.float64)
    chosen = np.asarray(profiles)
    count, images = table.shape
    sizes = np.bincount(chosen, minlength=count)
    shares = sizes / images
    chosen_is_right = table[chosen, np.arange(images)]
    expected = shares @ table
    gains = chosen_is_right - expected
    difference = float(gains.mean())
    half_width = Z_95 * float(gains.std()) / math.sqrt(images)

    costs = np.array([sum(macs[index] for index in run) for run in executed], dtype=np.float64)
    accuracies = table.mean(1)
    return RoutingMetrics(
        n=images,
        accuracy=float(chosen_is_right.mean()),
        profile_accuracies=tuple(accuracies.tolist()),
        random_accuracy=float(expected.mean()),
        difference=difference,
        difference_ci95=(max(-1.0, difference - half_width), min(1.0, difference + half_width)),
        permutation_p=_permutation_p(table, sizes, float(gains.sum())),
        same_macs_accuracy=best_mixture(macs, accuracies.tolist(), float(shares @ costs)),
        cross_fitted=cross_fitted,
    )


def _permutation_p(
    table: NDArray[np.float64], sizes: NDArray[np.int64], more_correct: float
) -> float:
    """Return the two-sided p-value of so many more right answers than expected at random."""
    images = table.shape[1]
    if images < 2:
        return 1.0
    shares = sizes / images
    by_image = shares @ table
    by_profile = table.mean(1)
    # Each image has one row for every place that it could take, and a profile as many as it has.
    centered = table - by_image - by_profile[:, None] + float(by_profile @ shares)
    variance = float(sizes @ (centered**2).sum(1)) / (images - 1)
    # Profiles that answer alike leave nothing to choose.
    if variance <= 1e-12:
        return 1.0
    return math.erfc(abs(more_correct) / math.sqrt(2 * variance))


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
