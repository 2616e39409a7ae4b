"""Time several files interleaved, so that what the machine does meanwhile affects all of them."""

from __future__ import annotations

from typing import Any

from start import open_file, seconds_of

BLOCK = 10
"""The most passes of one file in a row."""
MIN_ROUNDS = 20
"""The fewest rounds: with few passes a block has fewer of them."""
OPENINGS = 10
"""Files are opened so often: where memory lies makes one opening faster than the next."""
ROUNDS_EACH = 5
"""Rounds, at least, between two openings."""
WARMUP_AGAIN = 20
"""Passes before timing, at most, of a file that was open before."""
Files = Any
"""Pairs of a name and images, one of which makes a pass."""


def time_files(
    files: Files, threads: int, count: int, warmup: int
) -> tuple[int, list[list[float]]]:
    """Return how many passes of a file follow each other, and the seconds of each file's passes."""
    block = max(1, min(BLOCK, count // MIN_ROUNDS))
    rounds = count // block
    openings = max(1, min(OPENINGS, rounds // ROUNDS_EACH))
    samples: list[list[float]] = []
    for _ in files:
        samples.append([])
    passes: list[Any] = []
    for number in range(rounds):
        # In the first round of each opening, which have nearly as many rounds.
        if number * openings % rounds < openings:
            passes = open_all(files, threads, warmup if number == 0 else min(warmup, WARMUP_AGAIN))
        for (run, images), times in zip(passes, samples):
            time_block(run, images, number * block, block, times)
    return block, samples


def open_all(files: Files, threads: int, warmup: int) -> list[Any]:
    """Return the function of each opened file, warmed up, with its images."""
    passes = []
    for name, images in files:
        run = open_file(name, threads)
        for number in range(warmup):
            run(images[number % len(images)])
        passes.append((run, images))
    return passes


def time_block(run: Any, images: Any, first: int, count: int, times: list[float]) -> None:
    """Append the seconds of so many passes."""
    # Not timed: the caches are full of another model.
    run(images[first % len(images)])
    for number in range(first, first + count):
        times.append(seconds_of(run, images[number % len(images)])[0])
