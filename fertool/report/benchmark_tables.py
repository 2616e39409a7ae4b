"""What `bench` measured, as rows of text."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal

from fertool.report.board_text import agreement_cell, result_names
from fertool.report.text_table import TextTable
from fertool.report.units import (
    accuracy_cell,
    count_text,
    percent_text,
    size_text,
    speedup_cell,
    time_text,
)
from fertool.results import (
    BenchResult,
    FileResult,
    OperatorTime,
    SpeedComparison,
    SpeedRegression,
    StartTime,
    WarningKind,
)

Column = Literal["size", "counts", "accuracy"]
"""A column that a page can have in another table."""
RUNTIMES = {
    "torch": "PyTorch",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "tflite": "LiteRT",
    "executorch": "ExecuTorch",
    "torchlite": "lite interpreter",
}
_SMALL_SHARE = 0.01
"""Operators of less of the time stand in one line of a table; the JSON has each."""
_METHODS = {"rerun": "measured now, interleaved", "stored": "those of the older run"}
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
    "no-profile": "{file}: this runtime has no profiler, so that no time by operator is known",
    "one-batch": "{file}: takes batches of {value:.0f} only, and was measured with these alone",
}


def layout_benchmark(report: BenchResult, omitted: Collection[Column] = ()) -> TextTable:
    """Lay out a benchmark, two lines a file; the profiles of a dynamic network stand below it.

    There are columns of accuracy and of speed-up only where there is something to show; `omitted`
    are left out.
    """
    results = report.results
    names = result_names(results)
    several_batches = len({entry.batch for entry in results}) > 1
    has_energy = any(entry.energy_j is not None for entry in results)
    has_accuracy = "accuracy" not in omitted and _first_measured(results) is not None
    has_agreement = any(entry.agreement is not None for entry in results)
    has_speedup = len(report.comparisons) > 0
    headers = ["file\nruntime", ">memory" if "size" in omitted else ">size\nmemory"]
    if "counts" not in omitted:
        headers.append(">params\nMACs")
    headers.append(">latency\n90th pct.")
    headers.append(">images/s\nenergy" if has_energy else ">images/s")
    if has_accuracy:
        headers.append(">accuracy\n95 % CI")
    if has_agreement:
        headers.append(">as at home\nlargest diff.")
    if has_speedup:
        headers.append(">speed-up\n95 % CI")

    rows = []
    for entry, _, comparison in report.compared():
        name = names[entry.file]
        if several_batches:
            name += f", batch {entry.batch}"
        cells = _file_cells(entry, name, _typical_latency(report), omitted)
        cells.append(_throughput_cell(entry))
        if has_accuracy:
            cells.append(accuracy_cell(entry.headline))
        if has_agreement:
            cells.append(agreement_cell(entry))
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
    return cells


def _throughput_cell(entry: FileResult) -> str:
    text = count_text(entry.throughput_per_s)
    if entry.energy_j is None:
        return text
    return f"{text}\n{1000 * entry.energy_j:.3g} mJ"


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
    batches = ", ".join(str(batch) for batch in dict.fromkeys(entry.batch for entry in results))
    parts = [f"{threads}, batch {batches}, {runs}"]
    measured = _first_measured(results)
    if measured is not None:
        parts.append(f"accuracy: {measured.split}, n = {measured.n:,}")
    environments = []
    for entry in results:
        # The runs of boards have lines of their own.
        if not entry.source:
            environments.append(entry.environment or report.environment)
    parts += dict.fromkeys(environment.processor for environment in environments)
    return "; ".join(parts)


def threads_text(threads: int) -> str:
    """Return a number of threads: "1 thread"."""
    return f"{threads} thread" if threads == 1 else f"{threads} threads"


def bench_warnings(report: BenchResult) -> list[str]:
    """Return the warnings of a benchmark as sentences, each with what helps."""
    lines, other_runtimes = [], []
    for entry in report.warnings:
        name = _row_name(report, entry.file, entry.runtime, entry.batch)
        if entry.kind == "other-runtime":
            other_runtimes.append(name)
        else:
            lines.append(_WARNINGS[entry.kind].format(file=name, value=entry.value))
    # One line for all of them, since often every file but the baseline is concerned.
    if other_runtimes:
        lines.append(_WARNINGS["other-runtime"].format(file=", ".join(other_runtimes)))
    return lines


def _row_name(report: BenchResult, file: str, runtime: str, batch: int) -> str:
    """Return the name of a file, with runtime and batch size where it was measured with several."""
    runtimes, batches = set(), set()
    for result in report.results:
        if result.file == file:
            runtimes.add(result.runtime)
            batches.add(result.batch)
    details = []
    if runtime and len(runtimes) > 1:
        details.append(RUNTIMES.get(runtime, runtime))
    if batch and len(batches) > 1:
        details.append(f"batch {batch}")
    name = result_names(report.results)[file]
    if details:
        name += f" ({', '.join(details)})"
    return name


def layout_starts(report: BenchResult) -> TextTable | None:
    """Lay out the times of new processes, None where none were started for them."""
    rows = []
    for entry in report.results:
        if entry.load_s is None or entry.first_pass_s is None:
            continue
        name = _row_name(report, entry.file, entry.runtime, 0)
        loading, first_pass = _start_cell(entry.load_s), _start_cell(entry.first_pass_s)
        rows.append((name, str(len(entry.load_s.samples)), loading, first_pass))
    if not rows:
        return None
    headers = ("file", ">new processes", ">loading\n95 % CI", ">first pass\n95 % CI")
    return TextTable(headers, tuple(rows))


def _start_cell(time: StartTime) -> str:
    low, high = (time_text(bound) for bound in time.median_ci95)
    return f"{time_text(time.median)}\n{low} to {high}"


def layout_operators(entry: FileResult) -> TextTable:
    """Lay out the time by operator of a file, the longest first, those of little share in one."""
    shown: list[OperatorTime] = []
    rest: list[OperatorTime] = []
    for operator in entry.operators:
        group = rest if operator.share < _SMALL_SHARE else shown
        group.append(operator)
    # One alone needs no line of its own kind.
    if len(rest) > 1:
        calls = sum(operator.calls for operator in rest)
        time_s = sum(operator.time_s for operator in rest)
        share = sum(operator.share for operator in rest)
        rest = [OperatorTime(f"{len(rest)} others", calls, time_s, share)]
    rows = []
    for operator in [*shown, *rest]:
        share_text = percent_text(operator.share)
        calls_text = f"{operator.calls:.4g}"
        rows.append((operator.operator, calls_text, time_text(operator.time_s), share_text))
    return TextTable(("operator", ">calls", ">time", ">share"), tuple(rows))


def operators_caption(entry: FileResult) -> str:
    """Return what the times by operator are of."""
    runtime = RUNTIMES.get(entry.runtime, entry.runtime)
    return f"{entry.file} in {runtime}, batch {entry.batch}: one pass, while the profiler counts"


def layout_regression(report: BenchResult, regression: SpeedRegression) -> TextTable:
    """Lay out how files compare with those of older results."""
    rows = []
    for entry in regression.comparisons:
        low, high = (_change_text(bound) for bound in entry.ratio_ci95)
        name = _row_name(report, entry.candidate, entry.runtime, entry.batch)
        verdict = "too slow" if entry.exceeded else "within the limit"
        rows.append(
            (
                f"{name}\n{entry.baseline}",
                f"{time_text(entry.candidate_s)}\n{time_text(entry.baseline_s)}",
                f"{_change_text(entry.ratio)}\n{low} to {high}",
                f"{verdict}\n{_METHODS[entry.method]}",
            )
        )
    headers = ("file\nold file", ">median\nold", ">time\n95 % CI", "limit\nold times")
    return TextTable(headers, tuple(rows))


def regression_caption(regression: SpeedRegression) -> str:
    """Return what files were compared with, and the limit."""
    limit = f"{100 * regression.max_regression:g} %"
    return f"against {regression.file}: at most {limit} slower"


def _change_text(ratio: float) -> str:
    return f"{100 * (ratio - 1):+.1f} %"
