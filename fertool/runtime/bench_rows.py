"""What a benchmark measures: files in their runtimes, with batches of images, ready to run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fertool.config.benchmark import BenchConfig
from fertool.errors import UsageError
from fertool.results import BenchWarning
from fertool.runtime.opening import (
    default_runtime,
    open_predictor,
    require_runtime,
    runtimes_for,
)
from fertool.runtime.predictor import Forward, Predictor, largest_batch

DISTINCT_BATCHES = 16
"""Batches that the passes cycle through, the same for every file."""
DYNAMIC_BATCHES = 256
"""The same where a network adapts its work to the image: the figures depend on the images."""

ImageSource = Callable[[Predictor], NDArray[np.uint8]]
"""Returns images uint8 [N, C, S, S] in the shape that a predictor takes."""


@dataclass(frozen=True)
class Row:
    """A file in a runtime with a batch size."""

    path: Path
    runtime: str
    batch_size: int


@dataclass(frozen=True)
class Candidate:
    """A row that is open, with the batches that are shown to it, each uint8 [B, C, S, S].

    `index` is the place of the row among all.
    """

    index: int
    row: Row
    predictor: Predictor
    batches: list[NDArray[np.uint8]]
    passes: list[Forward]


def plan_rows(paths: Sequence[Path], config: BenchConfig) -> list[Row]:
    """Return the rows of files, in the order of files, runtimes and batch sizes.

    Raises UsageError for a file that none of the runtimes opens, FertoolError for a runtime that is
    not installed.
    """
    for name in config.runtime:
        require_runtime(name)
    rows = []
    for path in paths:
        for runtime in _chosen_runtimes(path, config.runtime):
            for batch_size in config.batch_size:
                rows.append(Row(path, runtime, batch_size))
    return rows


def _chosen_runtimes(path: Path, asked: Sequence[str]) -> list[str]:
    if not asked:
        return [default_runtime(path)]
    able = runtimes_for(path)
    chosen = [name for name in asked if name in able]
    if not chosen:
        raise UsageError(
            f"{path}: ``runtime={','.join(asked)}`` does not open it",
            f"it opens in {' and '.join(able)}",
        )
    return chosen


def open_candidates(
    rows: Sequence[Row], config: BenchConfig, images: ImageSource | None
) -> tuple[list[Candidate], list[BenchWarning]]:
    """Open and check all files before anything is timed, which may take minutes.

    Of several batch sizes those that a file does not take are skipped, with a warning. Raises
    FertoolError for files that cannot be opened and UsageError for a batch size that one does not
    take.
    """
    opened: list[tuple[int, Row, Predictor]] = []
    warnings: dict[tuple[Path, str], BenchWarning] = {}
    for index, row in enumerate(rows):
        predictor = _open(row, config)
        if _is_skipped(row, predictor, rows):
            key = (row.path, row.runtime)
            only = predictor.batch or 1
            warnings[key] = BenchWarning("one-batch", str(row.path), only, row.runtime)
            continue
        _require_batch_size(row, predictor)
        opened.append((index, row, predictor))

    # The same images for all files, since some are harder than others.
    dynamic = any(predictor.choose_profile for _, _, predictor in opened)
    most_batches = DYNAMIC_BATCHES if dynamic else DISTINCT_BATCHES
    candidates = []
    for index, row, predictor in opened:
        batches = _make_batches(row, predictor, config, images, most_batches)
        passes = [predictor.prepare_pass(batch) for batch in batches]
        candidates.append(Candidate(index, row, predictor, batches, passes))
    return candidates, list(warnings.values())


def reopen(candidate: Candidate, config: BenchConfig) -> Candidate:
    """Return a candidate opened again, with the same batches."""
    predictor = _open(candidate.row, config)
    passes = [predictor.prepare_pass(batch) for batch in candidate.batches]
    return replace(candidate, predictor=predictor, passes=passes)


def _open(row: Row, config: BenchConfig) -> Predictor:
    return open_predictor(
        row.path, threads=config.threads, foreign=config.foreign, runtime=row.runtime
    )


def _is_skipped(row: Row, predictor: Predictor, rows: Sequence[Row]) -> bool:
    """Return whether a file does not take the batch size of a row, but that of another row."""
    if predictor.batch in (None, row.batch_size):
        return False
    return Row(row.path, row.runtime, predictor.batch or 1) in rows


def _require_batch_size(row: Row, predictor: Predictor) -> None:
    batch_size = row.batch_size
    if predictor.batch not in (None, batch_size):
        raise UsageError(
            f"``batch_size={batch_size}``: {predictor.path} takes batches "
            f"of {predictor.batch} only",
            f"use ``batch_size={predictor.batch}``, or export it with a dynamic batch",
        )
    most = largest_batch(predictor.input)
    if batch_size > most:
        raise UsageError(
            f"``batch_size={batch_size}``: of the images of {predictor.path} {most} fit the memory",
            f"for example ``batch_size={min(256, most)}``",
        )


def _make_batches(
    row: Row, predictor: Predictor, config: BenchConfig, images: ImageSource | None, most: int
) -> list[NDArray[np.uint8]]:
    """Return up to `most` batches of images, as many as there are images for and fit the memory."""
    batch_size = row.batch_size
    pixels = images(predictor) if images else _noise(predictor, batch_size, config.seed)
    affordable = max(1, largest_batch(predictor.input) // batch_size)
    available = max(1, len(pixels) // batch_size)
    count = min(most, affordable, available)
    wanted = count * batch_size
    # Repeated where there are fewer images than a single batch has.
    if len(pixels) < wanted:
        pixels = np.resize(pixels, (wanted, *pixels.shape[1:]))
    return np.split(pixels[:wanted], count)


def _noise(predictor: Predictor, batch_size: int, seed: int) -> NDArray[np.uint8]:
    # Of a static network the time does not depend on what is in the images.
    size = predictor.input.size
    shape = (batch_size, predictor.channels, size, size)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
