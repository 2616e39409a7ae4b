"""How two files' times compare: a ratio and its 95 % interval."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fertool.runtime.interleaved import openings_of
from fertool.runtime.order_statistics import median_interval

RESAMPLES = 2000
_PERCENTILES = (2.5, 97.5)
Samples = NDArray[np.float64]
"""Seconds [rounds, block] of one file."""


def paired_ratio(numerator: Samples, denominator: Samples) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the times of two files that were measured interleaved, and its interval.

    It is the median over the rounds of the ratio of the two blocks' medians: the blocks of a round
    follow each other within milliseconds, so that what slows the machine for longer cancels out of
    each ratio. The interval is that of the median by order statistics, which assumes nothing of the
    distribution.
    """
    ratios = np.median(numerator, axis=1) / np.median(denominator, axis=1)
    return float(np.median(ratios)), median_interval(ratios.tolist())


def ratio_of_means(
    numerator: Samples, denominator: Samples, seed: int
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the mean times of two interleaved files, and its interval.

    For networks whose work depends on the image: a median is that of one of their profiles.
    Percentile bootstrap over whole rounds (Efron and Tibshirani 1993, chapter 13), the same rounds
    for both files.
    """
    above, below = numerator.mean(axis=1), denominator.mean(axis=1)
    rounds = len(above)
    drawn = np.random.default_rng(seed).integers(rounds, size=(RESAMPLES, rounds))
    ratios = above[drawn].mean(axis=1) / below[drawn].mean(axis=1)
    low, high = np.percentile(ratios, _PERCENTILES)
    return float(above.mean() / below.mean()), (float(low), float(high))


def unpaired_ratio(
    numerator: Samples, denominator: Samples, seed: int
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the median times of two files that were measured apart, and its interval.

    Percentile bootstrap over the parts of each measurement between two openings of the file, drawn
    independently: rounds within a part resemble each other. What differs between the two days
    beyond what changed within either measurement is not in it.
    """
    generator = np.random.default_rng(seed)
    ratios = _resampled_medians(numerator, generator) / _resampled_medians(denominator, generator)
    low, high = np.percentile(ratios, _PERCENTILES)
    ratio = float(np.median(numerator) / np.median(denominator))
    return ratio, (float(low), float(high))


def _resampled_medians(samples: Samples, generator: np.random.Generator) -> Samples:
    """Return the median of each resample [RESAMPLES]."""
    parts = np.array_split(np.median(samples, axis=1), openings_of(len(samples)))
    drawn = generator.integers(len(parts), size=(RESAMPLES, len(parts)))
    medians = np.empty(RESAMPLES)
    for index, chosen in enumerate(drawn):
        medians[index] = np.median(np.concatenate([parts[part] for part in chosen]))
    return medians
