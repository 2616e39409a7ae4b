"""What `bench` measured, as rows of text."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

from fertool.report.board_text import agreement_cell, result_names
from fertool.report.text_table import TextTable
from fertool.report.units import (
    accuracy_cell,
    count_text,
    counted,
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

_MakeCell = Callable[[FileResult, SpeedComparison | None], str]
"""Returns a cell of a file, from its result and its comparison with the baseline."""
Column = Literal["size", "counts", "accuracy"]
"""A column that a page can have in another table."""
_RUNTIME_NAMES = {
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
    columns = [*_file_columns(report, omitted), *_result_columns(report, omitted)]
    headers = [header for header, _ in columns]
    rows = []
    for entry, _, comparison in report.compared():
        rows.append(tuple(make_cell(entry, comparison) for _, make_cell in columns))
        rows += _profile_rows(entry, headers)
    return TextTable(tuple(headers), tuple(rows))


def _file_columns(
    report: BenchResult, omitted: Collection[Column]
) -> Iterator[tuple[str, _MakeCell]]:
    """Yield the headers and the cells of what every file has but for those that are omitted."""
    names = result_names(report.results)
    batches = {entry.batch for entry in report.results}

    def name_cell(entry: FileResult, comparison: SpeedComparison | None) -> str:
        name = names[entry.file]
        if len(batches) > 1:
            name += f", batch {entry.batch}"
        return f"{name}\n{_runtime_text(entry)}"

    yield "file\nruntime", name_cell
    if "size" in omitted:
        yield ">memory", lambda entry, comparison: size_text(entry.peak_rss_bytes)
    else:
        yield ">size\nmemory", _size_cell
    if "counts" not in omitted:
        yield ">params\nMACs", _counts_cell
    typical = _typical_latency(report)

    def latency_cell(entry: FileResult, comparison: SpeedComparison | None) -> str:
        latency = entry.latency_s
        return f"{time_text(getattr(latency, typical))}\n{time_text(latency.p90)}"

    yield ">latency\n90th pct.", latency_cell


def _result_columns(
    report: BenchResult, omitted: Collection[Column]
) -> Iterator[tuple[str, _MakeCell]]:
    """Yield the headers and the cells of what was measured for some files."""
    has_energy = any(entry.energy_j is not None for entry in report.results)
    yield (">images/s\nenergy" if has_energy else ">images/s"), _throughput_cell
    if "accuracy" not in omitted and _first_measured(report.results) is not None:
        yield ">accuracy\n95 % CI", lambda entry, comparison: accuracy_cell(entry.headline)
    if any(entry.agreement is not None for entry in report.results):
        yield ">same class\nlargest diff.", lambda entry, comparison: agreement_cell(entry)
    if report.comparisons:
        yield ">speed-up\n95 % CI", lambda entry, comparison: _speedup_cell(comparison)


def _runtime_text(entry: FileResult) -> str:
    runtime = runtime_name(entry.runtime)
    return f"{runtime} INT8" if entry.quantized else runtime


def runtime_name(runtime: str) -> str:
    """Return what the makers of a runtime call it, its own name where that is not known."""
    return _RUNTIME_NAMES.get(runtime, runtime)


def _size_cell(entry: FileResult, comparison: SpeedComparison | None) -> str:
    return f"{size_text(entry.size_bytes)}\n{size_text(entry.peak_rss_bytes)}"


def _counts_cell(entry: FileResult, comparison: SpeedComparison | None) -> str:
    return f"{count_text(entry.params)}\n{count_text(entry.macs)}"


def _throughput_cell(entry: FileResult, comparison: SpeedComparison | None) -> str:
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
    threads = counted(first.threads, "thread")
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
        details.append(runtime_name(runtime))
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
    runtime = runtime_name(entry.runtime)
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
