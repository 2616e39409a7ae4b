"""Interleaved timing of several models, and the speedup between two of them with its interval."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.runtime.predictor import Forward

BLOCK = 10
"""The most passes of one file in a row; fewer when that gives less than `MIN_ROUNDS` rounds."""
MIN_ROUNDS = 20
RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 50
"""Bounds the memory of the bootstrap, which holds so many copies of all samples."""


def time_interleaved(
    passes: Sequence[Sequence[Forward]],
    warmup: int,
    runs: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Return seconds [rounds, block] for each file.

    Pass number i of a file is `passes[file][i % len]`. Each round runs a block of every file, which
    starts with one pass that is not timed: the one before it was another model's, and left its data
    in the caches. `on_progress` counts rounds.
    """
    block = _block_size(runs)
    rounds = runs // block
    samples = [np.empty((rounds, block)) for _ in passes]
    for file_passes in passes:
        for index in range(warmup):
            file_passes[index % len(file_passes)]()

    gc_was_enabled = gc.isenabled()
    # A collection in the middle of a pass would be charged to it.
    gc.disable()
    try:
        for number in range(rounds):
            for file_passes, times in zip(passes, samples, strict=True):
                _time_block(file_passes, number * block, times[number])
            # Between rounds, so that young objects do not pile up while collection is off.
            gc.collect(0)
            if on_progress:
                on_progress(number + 1, rounds)
    finally:
        if gc_was_enabled:
            gc.enable()
    return samples


def _time_block(passes: Sequence[Forward], first: int, times: NDArray[np.float64]) -> None:
    """Fill in the seconds [block] of consecutive passes, from number `first` on."""
    passes[first % len(passes)]()
    for index in range(len(times)):
        forward = passes[(first + index) % len(passes)]
        start = time.perf_counter_ns()
        forward()
        times[index] = (time.perf_counter_ns() - start) * 1e-9


def _block_size(runs: int) -> int:
    """Return the largest divisor of `runs` up to BLOCK that leaves MIN_ROUNDS rounds, else 1."""
    size = min(BLOCK, max(1, runs // MIN_ROUNDS))
    while runs % size:
        size -= 1
    return size


def speedup_ci95(
    baseline: NDArray[np.float64],
    candidate: NDArray[np.float64],
    seed: int,
    typical: Callable[..., Any] = np.median,
) -> tuple[float, tuple[float, float]]:
    """Return the speedup and its 95 % interval.

    It is the ratio of the typical times, medians or means, of two samples [rounds, block].

    Percentile bootstrap over whole rounds (Efron and Tibshirani 1993, chapter 13), the same rounds
    for both files: what slows the machine for a while slows both, and passes within a block are not
    independent.
    """
    generator = np.random.default_rng(seed)
    rounds = len(baseline)
    ratios = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _RESAMPLES_AT_ONCE):
        drawn = generator.integers(rounds, size=(_RESAMPLES_AT_ONCE, rounds))
        baseline_times = typical(baseline[drawn].reshape(_RESAMPLES_AT_ONCE, -1), axis=1)
        candidate_times = typical(candidate[drawn].reshape(_RESAMPLES_AT_ONCE, -1), axis=1)
        ratios[start : start + _RESAMPLES_AT_ONCE] = baseline_times / candidate_times
    low, high = np.percentile(ratios, [2.5, 97.5])
    speedup = float(typical(baseline) / typical(candidate))
    return speedup, (float(low), float(high))
