"""Time the starts of files, and their passes interleaved.

What the machine does meanwhile affects all files.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from start import open_file, seconds_of

BLOCK = 10
"""The most passes of one file in a row; fewer when that gives less than `MIN_ROUNDS` rounds."""
MIN_ROUNDS = 20
MAX_OPENINGS = 20
"""How often files are opened: where memory lies makes one opening faster than the next."""
MIN_ROUNDS_PER_OPENING = 5
WARMUP_AGAIN = 20
"""Passes before timing, at most, of a file that was open before."""
Files = Any
"""Pairs of a name and images, one of which makes a pass."""


def measure_starts(name: str, image: Any, threads: int, count: int) -> dict[str, Any]:
    """Return what processes that run one file alone tell: seconds to load it, and memory."""
    # In new processes: a second file would find libraries in memory already.
    command = [sys.executable, str(Path(__file__).with_name("start.py")), name, str(threads)]
    saved = io.BytesIO()
    np.save(saved, image)
    load_s, first_pass_s, peak = [], [], 0
    for _ in range(count):
        done = subprocess.run(command, input=saved.getvalue(), capture_output=True)
        if done.returncode:
            said = done.stderr.decode(errors="replace").split("\n")
            raise RuntimeError(next(filter(None, said[::-1]), f"exit code {done.returncode}"))
        start = json.loads(done.stdout)
        load_s.append(start["load_s"])
        first_pass_s.append(start["first_pass_s"])
        peak = max(peak, start["peak_rss_bytes"] or 0)
    return {"load_s": load_s, "first_pass_s": first_pass_s, "peak_rss_bytes": peak or None}


def time_files(
    files: Files, threads: int, count: int, warmup: int
) -> tuple[int, list[list[float]]]:
    """Return how many passes of a file follow each other, and the seconds of each file's passes."""
    # As `fertool bench` does, whose intervals rest on these blocks and openings.
    block = min(BLOCK, max(1, count // MIN_ROUNDS))
    while count % block:
        block -= 1
    rounds = count // block
    openings = min(MAX_OPENINGS, max(1, rounds // MIN_ROUNDS_PER_OPENING))
    rounds_each = rounds // openings
    samples: list[list[float]] = []
    for _ in files:
        samples.append([])
    passes: list[Any] = []
    for number in range(rounds):
        # What a division leaves is the end of the last opening.
        if number % rounds_each == 0 and number // rounds_each < openings:
            passes = open_all(files, threads, warmup if number == 0 else min(warmup, WARMUP_AGAIN))
        order = list(range(len(passes)))
        # What the first file of a round gains or loses by its place cancels out.
        if number % 2:
            order.reverse()
        for file in order:
            run, images = passes[file]
            time_block(run, images, number * block, block, samples[file])
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
