from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx_files import CLASSES, example_spec, random_images, write_onnx

from fertool.config.foreign_files import ForeignModel
from fertool.errors import UsageError
from fertool.results import ClassFigures, Evaluation, FileResult, Latency, SpeedComparison
from fertool.runtime.bench_warnings import find_warnings
from fertool.runtime.benchmark import BenchConfig, bench
from fertool.runtime.interleaved import speedup_ci95, time_interleaved

QUICK = BenchConfig(warmup=3, runs=40, memory=False)


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
    result = bench([path], BenchConfig(warmup=0, runs=2, foreign=ForeignModel(CLASSES)))
    assert (result.results[0].peak_rss_bytes or 0) > 20_000_000
    assert result.comparisons == ()
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
    filled = result.with_accuracies([evaluation]).as_dict()["results"][0]
    assert {key: filled[key] for key in accuracy} == accuracy


def test_files_take_turns_and_see_the_same_batches() -> None:
    calls: list[str] = []

    def forward(name: str) -> Callable[[], None]:
        return lambda: calls.append(name)

    progress: list[tuple[int, int]] = []
    samples = time_interleaved(
        [
            [forward("a0"), forward("a1"), forward("a2")],
            [forward("b0"), forward("b1"), forward("b2")],
        ],
        warmup=1,
        runs=40,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    # A block of two passes follows one that is not timed.
    assert calls[:2] == ["a0", "b0"]
    assert calls[2:14] == ["a0", "a0", "a1", "b0", "b0", "b1", "a2", "a2", "a0", "b2", "b2", "b0"]
    assert [times.shape for times in samples] == [(20, 2), (20, 2)]
    assert progress[-1] == (20, 20)


@pytest.mark.parametrize(
    ("runs", "shape"), [(1000, (100, 10)), (100, (20, 5)), (37, (37, 1)), (1, (1, 1))]
)
def test_every_asked_run_is_kept(runs: int, shape: tuple[int, int]) -> None:
    assert time_interleaved([[lambda: None]], 0, runs)[0].shape == shape


def test_speedup_cancels_drift_and_its_interval_covers() -> None:
    covered, width_paired, trials = 0, 0.0, 40
    for seed in range(trials):
        generator = np.random.default_rng(seed)
        drift = np.exp(
            generator.normal(0, 0.2, (60, 1))
        )  # what the machine does, the same for both
        baseline = 2e-3 * drift * np.exp(generator.normal(0, 0.05, (60, 5)))
        candidate = 1e-3 * drift * np.exp(generator.normal(0, 0.05, (60, 5)))
        ratio, (low, high) = speedup_ci95(baseline, candidate, seed=0)
        assert ratio == np.median(baseline) / np.median(candidate)
        covered += low <= 2 <= high
        width_paired += (high - low) / trials
    shuffled = speedup_ci95(baseline, candidate[np.random.default_rng(0).permutation(60)], seed=0)[
        1
    ]
    assert covered >= 0.85 * trials
    assert width_paired < 0.7 * (shuffled[1] - shuffled[0])


def test_speedup_is_the_same_for_the_same_seed() -> None:
    generator = np.random.default_rng(1)
    a, b = generator.random((20, 5)) + 1, generator.random((20, 5)) + 1
    assert speedup_ci95(a, b, 3) == speedup_ci95(a, b, 3)


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
    assert [(warning.kind, warning.file) for warning in find_warnings(results, comparisons)] == [
        ("noisy", "b.pt"),
        ("slower", "b.pt"),
        ("int8-slower", "c.pt"),
        ("undecided", "d.pt"),
        ("other-runtime", "e.onnx"),
    ]
