"""Interleaved timing of several models."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray

from fertool.runtime.predictor import Forward

BLOCK = 10
"""The most passes of one file in a row; fewer when that gives less than `MIN_ROUNDS` rounds."""
MIN_ROUNDS = 20
MAX_OPENINGS = 20
"""How often the files are opened: where memory lies makes one opening faster than the next."""
MIN_ROUNDS_PER_OPENING = 5
WARMUP_AGAIN = 20
"""Passes before timing, at most, of a file that was open before."""

Passes = Sequence[Sequence[Forward]]
"""The passes of each file; pass number i of a file is `passes[file][i % len]`."""


def time_interleaved(
    open_passes: Callable[[], Passes],
    warmup: int,
    runs: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Return seconds [rounds, block] for each file.

    `open_passes` opens all files anew, and is called several times: two openings of one file differ
    by up to 2 %, which would pass for a difference between two files. Each round runs a block of
    every file, every second one in reverse order; a block starts with one pass that is not timed,
    since the one before it was another model's, and left its data in the caches. `on_progress`
    counts rounds.
    """
    block = block_size(runs)
    rounds = runs // block
    rounds_per_opening = rounds // openings_of(rounds)
    samples: list[NDArray[np.float64]] = []
    passes: Passes = ()
    for number in range(rounds):
        # What a division leaves is the end of the last opening.
        is_last = number // rounds_per_opening == openings_of(rounds)
        if number % rounds_per_opening == 0 and not is_last:
            passes = open_passes()
            _warm_up(passes, warmup if number == 0 else min(warmup, WARMUP_AGAIN))
        if not samples:
            samples = [np.empty((rounds, block)) for _ in passes]
        order = list(range(len(passes)))
        # What the first file of a round gains or loses by its place cancels out.
        if number % 2:
            order.reverse()
        with _without_collection():
            for file in order:
                _time_block(passes[file], number * block, samples[file][number])
        if on_progress:
            on_progress(number + 1, rounds)
    return samples


def block_size(runs: int) -> int:
    """Return the largest divisor of `runs` up to BLOCK that leaves MIN_ROUNDS rounds, else 1."""
    size = min(BLOCK, max(1, runs // MIN_ROUNDS))
    while runs % size:
        size -= 1
    return size


def openings_of(rounds: int) -> int:
    """Return how often the files are opened for so many rounds."""
    return min(MAX_OPENINGS, max(1, rounds // MIN_ROUNDS_PER_OPENING))


def _warm_up(passes: Passes, count: int) -> None:
    for file_passes in passes:
        for index in range(count):
            file_passes[index % len(file_passes)]()


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage in the block: that would be charged to the pass it falls into."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        # Young objects alone, so that they do not pile up while collection is off.
        gc.collect(0)
        if was_enabled:
            gc.enable()


def _time_block(passes: Sequence[Forward], first: int, times: NDArray[np.float64]) -> None:
    """Fill in the seconds [block] of consecutive passes, from number `first` on."""
    passes[first % len(passes)]()
    for index in range(len(times)):
        forward = passes[(first + index) % len(passes)]
        start = time.perf_counter_ns()
        forward()
        times[index] = (time.perf_counter_ns() - start) * 1e-9
