from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_files import CLASSES, example_spec, random_images, write_onnx

from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError, UsageError
from fertool.results import (
    BenchResult,
    ClassFigures,
    Environment,
    Evaluation,
    FileResult,
    Latency,
    SpeedComparison,
)
from fertool.results.benchmark import baselines
from fertool.runtime import opening
from fertool.runtime.bench_rows import plan_rows
from fertool.runtime.bench_warnings import find_warnings
from fertool.runtime.benchmark import BenchConfig, bench
from fertool.runtime.interleaved import time_interleaved
from fertool.runtime.runtime import Runtime
from fertool.runtime.runtimes.onnxruntime import OnnxRuntime
from fertool.runtime.time_ratios import paired_ratio, ratio_of_means, unpaired_ratio

QUICK = BenchConfig(warmup=3, runs=40, memory=False, starts=0)


def test_json_keys_and_figures(tmp_path: Path) -> None:
    slow = write_onnx(tmp_path / "slow.onnx", spec=example_spec(), work=8)
    fast = write_onnx(tmp_path / "fast.onnx", spec=example_spec())
    result = bench([slow, fast], QUICK, lambda predictor: random_images(3, predictor.input.size))
    data = json.loads(json.dumps(result.as_dict()))
    entry = data["results"][0]
    contract = (
        "file runtime threads batch latency_s throughput_per_s peak_rss_bytes size_bytes "
        "params macs accuracy"
    )
    assert set(contract.split()) | {"samples_s"} <= set(entry)
    assert set(entry["latency_s"]) == {"median", "mean", "p90", "p99", "min"}
    assert (entry["file"], entry["threads"], entry["batch"]) == (str(slow), 1, 1)
    assert (entry["params"], entry["macs"], entry["accuracy"]) == (6, 3, None)
    assert entry["size_bytes"] == slow.stat().st_size
    samples = np.array(entry["samples_s"])
    assert len(samples) == 40
    assert entry["latency_s"]["median"] == pytest.approx(np.median(samples))
    assert entry["latency_s"]["p99"] == pytest.approx(np.percentile(samples, 99))
    assert entry["throughput_per_s"] == pytest.approx(1 / samples.mean())
    (comparison,) = data["comparisons"]
    assert (comparison["baseline"], comparison["candidate"]) == (str(slow), str(fast))
    low, high = comparison["speedup_ci95"]
    assert 1 < low <= comparison["speedup"] <= high


def test_memory_and_accuracy_are_filled_in(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx")
    result = bench([path], BenchConfig(warmup=0, runs=2, starts=2, foreign=ForeignModel(CLASSES)))
    assert (result.results[0].peak_rss_bytes or 0) > 20_000_000
    assert result.comparisons == ()
    load_s = result.results[0].load_s
    assert load_s is not None
    assert load_s.median_ci95 == (min(load_s.samples), max(load_s.samples))
    assert len(load_s.samples) == 2
    accuracy = {"split": "val", "n": 4, "accuracy": 0.5, "accuracy_ci95": (0.1, 0.9)}
    evaluation = Evaluation(
        **accuracy,
        macro_f1=0.5,
        balanced_accuracy=0.5,
        ece=0.1,
        per_class={"a": ClassFigures(0.5, 0.5, 0.5, 4)},
        confusion=((4,),),
        file=str(path),
    )
    evaluations = {(str(path), "onnxruntime"): evaluation}
    filled = result.with_accuracies(evaluations).as_dict()["results"][0]
    assert {key: filled[key] for key in accuracy} == accuracy


def test_files_take_turns_and_see_the_same_batches() -> None:
    calls: list[str] = []

    def forward(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    def open_passes() -> list[list[Callable[[], None]]]:
        calls.append("open")
        return [[forward(f"{file}{number}") for number in range(3)] for file in "ab"]

    progress: list[tuple[int, int]] = []
    samples = time_interleaved(open_passes, 1, 40, lambda *counts: progress.append(counts))
    # A block of two passes follows one that is not timed; every second round is in reverse order.
    assert calls[:3] == ["open", "a0", "b0"]
    assert calls[3:15] == ["a0", "a0", "a1", "b0", "b0", "b1", "b2", "b2", "b0", "a2", "a2", "a0"]
    # Of 20 rounds, opened again after every fifth.
    assert calls.count("open") == 4
    assert calls.index("open", 1) == 3 + 5 * 6
    assert [times.shape for times in samples] == [(20, 2), (20, 2)]
    assert progress[-1] == (20, 20)


@pytest.mark.parametrize(
    ("runs", "shape"), [(1000, (100, 10)), (100, (20, 5)), (37, (37, 1)), (1, (1, 1))]
)
def test_every_asked_run_is_kept(runs: int, shape: tuple[int, int]) -> None:
    assert time_interleaved(lambda: [[lambda: None]], 0, runs)[0].shape == shape


def _drifting_times(seed: int, ratio: float) -> tuple[Any, Any]:
    """Seconds [100, 10] of two files on a machine that others use, which slows both alike."""
    generator = np.random.default_rng(seed)
    drift = np.exp(np.cumsum(generator.normal(0, 0.03, (100, 1)), axis=0))
    times = []
    for scale in (ratio, 1.0):
        noise = np.exp(generator.normal(0, 0.05, (100, 10)))
        # Some passes are interrupted for long.
        noise *= np.where(generator.random((100, 10)) < 0.05, 4, 1)
        times.append(1e-3 * scale * drift * noise)
    return times[0], times[1]


def test_a_paired_ratio_cancels_drift_and_its_interval_covers() -> None:
    covered, found, trials = 0, 0, 100
    for seed in range(trials):
        ratio, (low, high) = paired_ratio(*_drifting_times(seed, 1.05))
        assert low <= ratio <= high
        covered += low <= 1.05 <= high
        found += low > 1
    assert covered >= 0.93 * trials
    assert found >= 0.99 * trials


def test_the_interval_covers_where_an_opening_of_a_file_is_slower_than_the_next() -> None:
    covered, trials = 0, 200
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        opening = np.repeat(np.exp(generator.normal(0, 0.01, 20)), 5)[:, None]
        noise = np.exp(generator.normal(0, 0.001, (2, 100, 10)))
        _, (low, high) = paired_ratio(1e-3 * opening * noise[0], 1e-3 * noise[1])
        covered += low <= 1 <= high
    assert covered >= 0.95 * trials


def test_times_of_two_runs_have_a_wider_interval() -> None:
    numerator, denominator = _drifting_times(0, 1.05)
    _, paired = paired_ratio(numerator, denominator)
    _, apart = unpaired_ratio(numerator, denominator, seed=0)
    assert apart[1] - apart[0] > 2 * (paired[1] - paired[0])
    # By the same draws for the same seed.
    assert apart == unpaired_ratio(numerator, denominator, seed=0)[1]


def test_means_count_for_dynamic_networks() -> None:
    # One image in five goes through the wide profile, which takes ten times as long.
    profile = np.tile([10.0, 1, 1, 1, 1], (40, 2))
    ratio, (low, high) = ratio_of_means(profile, np.ones_like(profile), seed=0)
    assert (ratio, low, high) == pytest.approx((2.8, 2.8, 2.8))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"runs": 0}, "``runs=0``"),
        ({"batch_size": 0}, "``batch_size=0``"),
        ({"warmup": -1}, "``warmup=-1``"),
    ],
)
def test_bad_options_name_the_flag(options: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BenchConfig(**options)  # type: ignore[arg-type]


def test_a_fixed_batch_names_the_flag(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "foreign.onnx", batch=4)
    with pytest.raises(
        UsageError, match=r"``batch_size=1``: .*foreign.onnx takes batches of 4 only"
    ):
        bench([path], BenchConfig(foreign=ForeignModel(CLASSES)))


def _result(
    file: str, runtime: str = "torch", quantized: bool = False, p90: float = 1.1
) -> FileResult:
    latency = Latency(1, 1, p90, 2, 0.9)
    return FileResult(
        file=file,
        runtime=runtime,
        threads=1,
        batch=1,
        latency_s=latency,
        throughput_per_s=1,
        peak_rss_bytes=None,
        size_bytes=1,
        params=None,
        macs=None,
        samples_s=(1.0,) * 100,
        quantized=quantized,
    )


def test_warnings() -> None:
    results = [
        _result("a.pt"),
        _result("b.pt", p90=1.6),
        _result("c.pt", quantized=True),
        _result("d.pt"),
        _result("e.onnx", runtime="onnxruntime"),
        _result("f.pt"),
    ]
    intervals = [(0.8, 0.9), (0.7, 0.8), (0.9, 1.1), (3.0, 3.1), (1.1, 1.2)]
    comparisons = [
        SpeedComparison("a.pt", result.file, sum(interval) / 2, interval)
        for result, interval in zip(results[1:], intervals, strict=True)
    ]
    pairs = [(result, results[0] if number else None) for number, result in enumerate(results)]
    assert [(warning.kind, warning.file) for warning in find_warnings(pairs, comparisons)] == [
        ("noisy", "b.pt"),
        ("slower", "b.pt"),
        ("int8-slower", "c.pt"),
        ("undecided", "d.pt"),
        ("other-runtime", "e.onnx"),
    ]


def test_a_row_for_each_file_and_batch_size_each_with_its_own_baseline(tmp_path: Path) -> None:
    first = write_onnx(tmp_path / "first.onnx", spec=example_spec())
    second = write_onnx(tmp_path / "second.onnx", spec=example_spec())
    result = bench([first, second], replace(QUICK, batch_size=(1, 8)))
    rows = [(Path(entry.file).stem, entry.batch) for entry in result.results]
    assert rows == [("first", 1), ("first", 8), ("second", 1), ("second", 8)]
    assert [(entry.candidate, entry.batch) for entry in result.comparisons] == [
        (str(second), 1),
        (str(second), 8),
    ]
    for entry in result.results:
        assert entry.throughput_per_s == pytest.approx(entry.batch / entry.latency_s.mean)


def test_batch_sizes_that_a_file_does_not_take_are_left_out_with_a_warning(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", batch=4)
    config = replace(QUICK, batch_size=(1, 4, 8), foreign=ForeignModel(CLASSES))
    result = bench([path], config)
    assert [entry.batch for entry in result.results] == [4]
    assert [
        (entry.kind, entry.value) for entry in result.warnings if entry.kind == "one-batch"
    ] == [("one-batch", 4)]


def test_each_result_says_where_it_was_measured_and_on_which_bytes(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    (entry,) = bench([path], QUICK).results
    assert entry.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    environment = entry.environment
    assert environment is not None
    assert environment.processor
    assert set(environment.versions) == {"fertool", "onnxruntime"}


def test_results_of_two_machines_are_not_compared(tmp_path: Path) -> None:
    here, there = Environment("x86", 2, "Linux x86_64"), Environment("Cortex-A76", 4, "Linux arm")
    results = [
        replace(_result("a.onnx"), environment=here),
        replace(_result("b.onnx"), environment=here),
        replace(_result("a.onnx"), environment=there),
    ]
    pairs = baselines(results, here)
    assert [baseline and baseline.file for _, baseline in pairs] == [None, "a.onnx", None]
    comparison = SpeedComparison("a.onnx", "a.onnx", 0.1, (0.1, 0.1))
    with pytest.raises(ValueError, match="on a machine"):
        BenchResult(tuple(results), (comparison, comparison), (), 0, 1, here)


def test_the_profile_of_a_file_is_in_the_result(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec(), work=5)
    (entry,) = bench([path], replace(QUICK, runs=4, profile=True)).results
    # ONNX Runtime fuses nothing into these, and a matrix takes longer than three values.
    assert entry.operators[0].operator == "MatMul"
    assert entry.operators[0].calls == 5
    assert sum(operator.share for operator in entry.operators) == pytest.approx(1)
    times = [operator.time_s for operator in entry.operators]
    assert times == sorted(times, reverse=True)


def test_a_runtime_without_a_profiler_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    monkeypatch.setattr(OnnxRuntime, "profile", Runtime.profile)
    result = bench([path], replace(QUICK, runs=4, profile=True))
    assert result.results[0].operators == ()
    assert "no-profile" in [entry.kind for entry in result.warnings]


def test_a_runtime_that_does_not_open_a_file_names_those_that_do(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    with pytest.raises(UsageError, match="``runtime=torch`` does not open it") as caught:
        plan_rows([path], BenchConfig(runtime=("torch",)))
    assert caught.value.hint == "it opens in onnxruntime and openvino"


def test_a_missing_runtime_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    path = write_onnx(tmp_path / "m.onnx", spec=example_spec())
    with pytest.raises(FertoolError, match="``runtime=openvino``: openvino is not inst") as caught:
        plan_rows([path], BenchConfig(runtime=("openvino",)))
    assert caught.value.hint == "pip install 'fertool[openvino]'"


def test_a_file_has_a_row_in_each_runtime_that_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: name)
    config = BenchConfig(runtime=("torch,openvino", "onnxruntime"))
    rows = plan_rows([tmp_path / "m.onnx", tmp_path / "m.pt"], config)
    assert [(row.path.suffix, row.runtime) for row in rows] == [
        (".onnx", "openvino"),
        (".onnx", "onnxruntime"),
        (".pt", "torch"),
    ]
