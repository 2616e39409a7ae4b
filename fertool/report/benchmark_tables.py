"""What `bench` measured, as rows of text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from fertool.report.text_table import TextTable
from fertool.report.units import (
    accuracy_cell,
    count_text,
    percent_text,
    short_file_names,
    size_text,
    speedup_cell,
    time_text,
)
from fertool.results import BenchResult, FileResult, SpeedComparison, WarningKind

Column = Literal["size", "counts", "accuracy"]
"""A column that a page can have in another table."""
RUNTIMES = {"torch": "PyTorch", "onnxruntime": "ONNX Runtime"}
_WARNINGS: Mapping[WarningKind, str] = {
    "noisy": "{file}: the 90th percentile is {value:.1f} times the median; "
    "close other programs and measure again",
    "few-runs": "{value:.0f} runs give no reliable percentiles; measure 1000",
    "other-runtime": "{file}: not the baseline's runtime, so that the speed-up is not the "
    "model's alone",
    "slower": "{file}: slower than the baseline ({value:.2f} x)",
    "int8-slower": "{file}: INT8 is slower than the float baseline ({value:.2f} x); "
    "this processor may lack VNNI",
    "undecided": "{file}: no measurable difference in speed to the baseline; "
    "more runs narrow the interval",
}


def layout_benchmark(report: BenchResult, omitted: Collection[Column] = ()) -> TextTable:
    """Lay out a benchmark, two lines a file; the profiles of a dynamic network stand below it.

    There are columns of accuracy and of speed-up only where there is something to show; `omitted`
    are left out.
    """
    results = report.results
    names = short_file_names(results)
    has_accuracy = "accuracy" not in omitted and _first_measured(results) is not None
    has_speedup = len(results) > 1
    headers = ["file\nruntime", ">memory" if "size" in omitted else ">size\nmemory"]
    if "counts" not in omitted:
        headers.append(">params\nMACs")
    headers += [">latency\n90th pct.", ">images/s"]
    if has_accuracy:
        headers.append(">accuracy\n95 % CI")
    if has_speedup:
        headers.append(">speed-up\n95 % CI")

    rows = []
    # The baseline comes first and has no comparison.
    comparisons = [None, *report.comparisons]
    for entry, comparison in zip(results, comparisons, strict=True):
        cells = _file_cells(entry, names[entry.file], _typical_latency(report), omitted)
        if has_accuracy:
            cells.append(accuracy_cell(entry.headline))
        if has_speedup:
            cells.append(_speedup_cell(comparison))
        rows.append(tuple(cells))
        rows += _profile_rows(entry, headers)
    return TextTable(tuple(headers), tuple(rows))


def _file_cells(
    entry: FileResult, name: str, typical: str, omitted: Collection[Column]
) -> list[str]:
    """Return the cells of a file; `typical` is the key of the latency that stands for all."""
    latency = entry.latency_s
    runtime = RUNTIMES.get(entry.runtime, entry.runtime)
    if entry.quantized:
        runtime += " INT8"
    memory = size_text(entry.peak_rss_bytes)
    size = "" if "size" in omitted else f"{size_text(entry.size_bytes)}\n"
    cells = [f"{name}\n{runtime}", f"{size}{memory}"]
    if "counts" not in omitted:
        cells.append(f"{count_text(entry.params)}\n{count_text(entry.macs)}")
    cells.append(f"{time_text(getattr(latency, typical))}\n{time_text(latency.p90)}")
    cells.append(count_text(entry.throughput_per_s))
    return cells


def _speedup_cell(comparison: SpeedComparison | None) -> str:
    if comparison is None:
        return "1\nbaseline"
    return speedup_cell(comparison.speedup, comparison.speedup_ci95)


def _profile_rows(entry: FileResult, headers: Sequence[str]) -> list[tuple[str, ...]]:
    """Return a row for each profile of a dynamic network: its fraction of images and latency."""
    rows = []
    place = headers.index(">latency\n90th pct.")
    for profile in entry.profiles:
        fraction = percent_text(profile.share)
        name = f"  profile {profile.profile}: {fraction} of the images"
        cells = [name, *[""] * (len(headers) - 1)]
        cells[place] = time_text(profile.latency_s)
        rows.append(tuple(cells))
    return rows


def _typical_latency(report: BenchResult) -> str:
    """Return which statistic of the latencies the table shows."""
    # The work of a dynamic network depends on the image: its median is that of one profile.
    if any(entry.profiles for entry in report.results):
        return "mean"
    return "median"


def _first_measured(results: Sequence[FileResult]) -> FileResult | None:
    """Return the first entry with an accuracy."""
    for entry in results:
        if entry.accuracy is not None:
            return entry
    return None


def benchmark_caption(report: BenchResult) -> str:
    """Return how a benchmark was measured: threads, batch, runs, accuracy and processor."""
    results = report.results
    first = results[0]
    threads = threads_text(first.threads)
    runs = f"{report.runs:,} runs, {_typical_latency(report)}s"
    parts = [f"{threads}, batch {first.batch}, {runs}"]
    measured = _first_measured(results)
    if measured is not None:
        parts.append(f"accuracy: {measured.split}, n = {measured.n:,}")
    parts.append(report.environment.processor)
    return "; ".join(parts)


def threads_text(threads: int) -> str:
    """Return a number of threads: "1 thread"."""
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def bench_warnings(report: BenchResult) -> list[str]:
    """Return the warnings of a benchmark as sentences, each with what helps."""
    names = short_file_names(report.results)
    lines, other_runtimes = [], []
    for entry in report.warnings:
        name = names[entry.file]
        if entry.kind == "other-runtime":
            other_runtimes.append(name)
        else:
            lines.append(_WARNINGS[entry.kind].format(file=name, value=entry.value))
    # One line for all of them, since often every file but the baseline is concerned.
    if other_runtimes:
        lines.append(_WARNINGS["other-runtime"].format(file=", ".join(other_runtimes)))
    return lines
