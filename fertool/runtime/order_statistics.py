"""Figures of times: the interval of a median between two of its samples, percentiles."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

import numpy as np
from numpy.typing import NDArray

from fertool.results import Latency, StartTime

FEWEST_SAMPLES = 6
"""With fewer the interval between the smallest and the largest does not reach 95 %."""
_TAIL = 0.025
"""The probability that an interval of 95 % leaves out on either side."""


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median, between two of the samples.

    The number of samples below the true median is binomial at 1/2 whatever their distribution, so
    that order statistics bound it (David and Nagaraja 2003, 7.1). Fewer than `FEWEST_SAMPLES`
    do not reach 95 %: the interval then has all of them.
    """
    ordered = sorted(samples)
    skipped = _skipped_samples(len(ordered))
    return ordered[skipped], ordered[-1 - skipped]


def start_time(samples: Sequence[float]) -> StartTime:
    """Return the seconds of several processes with their median and its interval."""
    return StartTime(median(samples), median_interval(samples), tuple(samples))


def _skipped_samples(count: int) -> int:
    """Return how many samples the interval leaves out on either side."""
    below = skipped = 0
    binomial = 1
    for number in range(count // 2):
        below += binomial
        if below > _TAIL * 2**count:
            break
        skipped = number
        binomial = binomial * (count - number) // (number + 1)
    return skipped


def latency_of(seconds: NDArray[np.float64]) -> Latency:
    """Return the figures of the times of all passes."""
    p90, p99 = np.percentile(seconds, [90, 99])
    return Latency(
        median=float(np.median(seconds)),
        mean=float(seconds.mean()),
        p90=float(p90),
        p99=float(p99),
        min=float(seconds.min()),
    )
