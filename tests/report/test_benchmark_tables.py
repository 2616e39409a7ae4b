from __future__ import annotations

from dataclasses import replace

from report_data import bench_report

from fertool.report import benchmark_tables
from fertool.report.page import render_page
from fertool.report.result_files import ReportData
from fertool.report.verdict import find_pair
from fertool.results import (
    BenchResult,
    BenchWarning,
    Environment,
    OperatorTime,
    SpeedRegression,
    StartTime,
    TimeRatio,
)

BOARD = Environment("Cortex-A76", 4, "Linux aarch64")


def with_batches(*batches: int) -> BenchResult:
    """One file with several batch sizes."""
    report = bench_report("a.onnx")
    results = tuple(replace(report.results[0], batch=batch) for batch in batches)
    return replace(report, results=results)


def test_batch_sizes_have_rows_of_their_own() -> None:
    report = with_batches(1, 8)
    table = benchmark_tables.layout_benchmark(report)
    assert [row[0].splitlines()[0] for row in table.rows] == ["a.onnx, batch 1", "a.onnx, batch 8"]
    assert "batch 1, 8" in benchmark_tables.benchmark_caption(report)
    warned = replace(report, warnings=(BenchWarning("noisy", "a.onnx", 2, "onnxruntime", 8),))
    (line,) = benchmark_tables.bench_warnings(warned)
    assert line.startswith("a.onnx (batch 8): the 90th percentile")


def test_start_times_stand_beside_their_intervals() -> None:
    report = bench_report("a.onnx")
    assert benchmark_tables.layout_starts(report) is None
    time = StartTime(0.04, (0.03, 0.05), (0.03, 0.04, 0.05))
    started = replace(report.results[0], load_s=time, first_pass_s=time)
    table = benchmark_tables.layout_starts(replace(report, results=(started,)))
    assert table is not None
    assert table.rows == (("a.onnx", "3", *2 * ("40.0 ms\n30.0 ms to 50.0 ms",)),)


def test_small_operators_share_a_line() -> None:
    operators = [OperatorTime("Conv", 13, 0.98e-3, 0.98)]
    operators += [OperatorTime(name, 1, 5e-6, 0.005) for name in ("Add", "Gemm", "Pool", "Relu")]
    entry = replace(bench_report("a.onnx").results[0], operators=tuple(operators))
    table = benchmark_tables.layout_operators(entry)
    assert [row[0] for row in table.rows] == ["Conv", "4 others"]
    assert table.rows[1][1:] == ("4", "20.0 µs", "2.0 %")


def test_a_missed_limit_is_in_table_and_page() -> None:
    ratio = TimeRatio(
        *("old.onnx", "a.onnx", "onnxruntime", 1, "rerun", 1e-3, 1.1e-3, 1.1, (1.08, 1.12)), True
    )
    report = replace(bench_report("a.onnx"), against=SpeedRegression("old.json", 0.05, (ratio,)))
    assert report.against is not None
    (row,) = benchmark_tables.layout_regression(report, report.against).rows
    assert row[2] == "+10.0 %\n+8.0 % to +12.0 %"
    assert row[3].startswith("too slow")
    page = render_page(ReportData(benchmarks=[report]), as_markdown=True)
    assert "against old.json: at most 5 % slower" in page


def test_a_page_compares_no_files_of_two_machines() -> None:
    here = bench_report("a.onnx")
    elsewhere = replace(here.results[0], file="b.onnx", environment=BOARD)
    there = replace(bench_report("b.onnx"), results=(elsewhere,), warnings=())
    # Neither of two files of results, nor within one that has rows of both.
    both = replace(here, results=(*here.results, *there.results))
    for found in (ReportData(benchmarks=[here, there]), ReportData(benchmarks=[both])):
        assert find_pair(found) is None
    assert [comparison for *_, comparison in both.compared()] == [None, None]
    caption = benchmark_tables.benchmark_caption(both)
    assert "Cortex-A76" in caption
    assert here.environment.processor in caption
