"""The interval of a median between two of its samples."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from fertool.results import StartTime

_TAIL = 0.025
"""The probability that an interval of 95 % leaves out on either side."""


def median_interval(samples: Sequence[float]) -> tuple[float, float]:
    """Return the 95 % interval of the median, between two of the samples.

    The number of samples below the true median is binomial at 1/2 whatever their distribution, so
    that order statistics bound it (David and Nagaraja 2003, 7.1). Fewer than six samples do not
    reach 95 %: the interval then has all of them.
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
