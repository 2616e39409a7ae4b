"""Results of a bundle's `run.py` as rows of a benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from fertool.metrics import wilson_ci95
from fertool.results import BoardFile, BoardResult, FileResult, ImportedRun
from fertool.runtime.order_statistics import latency_of, start_time

RUNTIME = "onnxruntime"
"""The only one that the programs of a bundle use."""


def imported_rows(source: Path, board: BoardResult) -> list[FileResult]:
    """Return a row for each file that ran; its name begins with that of the board's JSON."""
    return [_row(source, board, entry) for entry in board.files]


def imported_run(source: Path, board: BoardResult) -> ImportedRun:
    """Return how the files were run."""
    return ImportedRun(
        source=str(source),
        environment=board.environment,
        threads=board.threads,
        warmup=board.warmup,
        runs=len(board.files[0].samples_s),
        failed=board.failed,
        celsius_before=board.celsius_before,
        celsius_after=board.celsius_after,
    )


def _row(source: Path, board: BoardResult, entry: BoardFile) -> FileResult:
    times = np.array(entry.samples_s)
    latency = latency_of(times)
    return FileResult(
        file=str(source.with_suffix("") / entry.file),
        runtime=RUNTIME,
        threads=board.threads,
        batch=1,
        latency_s=latency,
        # Of the mean: images in an hour follow from the sum of all passes.
        throughput_per_s=1 / latency.mean,
        peak_rss_bytes=entry.peak_rss_bytes,
        size_bytes=entry.size_bytes,
        params=entry.params,
        macs=entry.macs,
        samples_s=entry.samples_s,
        quantized=entry.quantized,
        digest=entry.digest,
        block=board.block,
        sha256=entry.sha256,
        load_s=start_time(entry.load_s),
        first_pass_s=start_time(entry.first_pass_s),
        environment=board.environment,
        source=str(source),
        agreement=entry.agreement,
        **_accuracy(entry),
    )


def _accuracy(entry: BoardFile) -> dict[str, Any]:
    """Return the figures of the test images, where their labels are known."""
    agreement = entry.agreement
    if agreement.correct is None or entry.split is None:
        return {}
    return {
        "accuracy": agreement.correct / agreement.n,
        "accuracy_ci95": wilson_ci95(agreement.correct, agreement.n),
        "split": entry.split,
        "n": agreement.n,
    }
