from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fertool.artifact.store import file_digest
from fertool.config.benchmark import BenchConfig, SpeedLimit
from fertool.errors import FertoolError, LimitError, UsageError
from fertool.reporter import SILENT
from fertool.results import BenchResult, FileResult, Latency, SpeedComparison
from fertool.runtime.bench_rows import Row
from fertool.runtime.environment import read_environment
from fertool.workflows.speed_regression import compare_with_older, read_older, require_speed


def measured(path: Path | str, times: Any = 1e-3, **changes: Any) -> FileResult:
    """A result of passes that take these seconds [rounds, block]."""
    samples = np.broadcast_to(times, (100, 10))
    median = float(np.median(samples))
    values: dict[str, Any] = {
        "file": str(path),
        "runtime": "onnxruntime",
        "threads": 1,
        "batch": 1,
        "latency_s": Latency(median, median, median, median, median),
        "throughput_per_s": 1 / median,
        "peak_rss_bytes": None,
        "size_bytes": 1,
        "params": None,
        "macs": None,
        "samples_s": tuple(samples.reshape(-1).tolist()),
        "block": 10,
        "environment": read_environment("onnxruntime"),
    }
    return FileResult(**{**values, **changes})


def write_older(folder: Path, *results: FileResult) -> Path:
    comparisons = []
    for result in results[1:]:
        if result.batch == results[0].batch:
            comparisons.append(SpeedComparison(results[0].file, result.file, 1, (1, 1)))
    report = BenchResult(results, tuple(comparisons), (), 0, 1000, read_environment())
    path = folder / "old.json"
    path.write_text(json.dumps(report.as_dict()), encoding="utf-8")
    return path


def rows(*paths: Path | str) -> list[Row]:
    return [Row(Path(path), "onnxruntime", 1) for path in paths]


def noise(seed: int, scale: float = 1) -> Any:
    """Seconds [100, 10] around `scale` milliseconds."""
    return 1e-3 * scale * np.random.default_rng(seed).normal(1, 0.03, (100, 10))


def read(path: Path, wanted: Sequence[Row], config: BenchConfig = BenchConfig()) -> Any:
    return read_older(SpeedLimit(path), wanted, config, SILENT)


def test_an_old_file_that_is_still_there_runs_again(tmp_path: Path) -> None:
    old = tmp_path / "old.onnx"
    old.write_bytes(b"old")
    results = measured("old.onnx", sha256=file_digest(old))
    # Its path is that of the other folder, where the JSON is too.
    older = read(write_older(tmp_path, results), rows("new.onnx"))
    assert older.rows == rows(old)
    # As the older times do not count, their machine does not matter.
    elsewhere = replace(read_environment(), processor="another")
    older = read(write_older(tmp_path, replace(results, environment=elsewhere)), rows("new.onnx"))
    assert older.rows == rows(old)


def test_a_file_of_other_bytes_is_not_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"new")
    older = read(write_older(tmp_path, measured("model.onnx", sha256="0" * 64)), rows("model.onnx"))
    assert older.rows == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"processor": "Cortex-A76"}, "processor: Cortex-A76, now "),
        ({"versions": {"onnxruntime": "1.17.3"}}, "onnxruntime: 1.17.3, now "),
        ({"cores": 64}, "cores: 64, now "),
    ],
)
def test_times_of_another_machine_or_version_are_refused(
    tmp_path: Path, change: dict[str, Any], difference: str
) -> None:
    environment = replace(read_environment("onnxruntime"), **change)
    path = write_older(tmp_path, measured("old.onnx", environment=environment))
    with pytest.raises(FertoolError, match="measured under other conditions") as caught:
        read(path, rows("new.onnx"))
    assert difference in caught.value.message


def test_times_with_other_threads_are_refused(tmp_path: Path) -> None:
    path = write_older(tmp_path, measured("old.onnx", threads=4))
    with pytest.raises(FertoolError, match="threads: 4, now 1"):
        read(path, rows("new.onnx"))


def test_files_are_matched_by_name_or_by_place(tmp_path: Path) -> None:
    path = write_older(tmp_path, measured("then/a.onnx"), measured("then/b.onnx"))

    def old_files(*names: str) -> list[str]:
        return [pair.old.file for pair in read(path, rows(*names)).pairs]

    assert old_files("now/b.onnx", "now/a.onnx") == ["then/b.onnx", "then/a.onnx"]
    assert old_files("now/b.onnx") == ["then/b.onnx"]
    assert old_files("now/c.onnx", "now/d.onnx") == ["then/a.onnx", "then/b.onnx"]
    with pytest.raises(UsageError, match="has 2 files"):
        read(path, rows("c.onnx"))


def test_a_row_that_was_not_measured_then(tmp_path: Path) -> None:
    path = write_older(tmp_path, measured("old.onnx"))
    with pytest.raises(FertoolError, match="not measured in openvino with ``batch_size=8``"):
        read(path, [Row(Path("new.onnx"), "openvino", 8)])


def test_another_json_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text('{"a": 1}', encoding="utf-8")
    with pytest.raises(FertoolError, match="not a result of a fertool command"):
        read(path, rows("new.onnx"))


@pytest.mark.parametrize("rerun", [True, False])
@pytest.mark.parametrize(("slower", "exceeded"), [(1.0, False), (1.04, False), (1.1, True)])
def test_only_a_whole_interval_beyond_the_limit_exceeds_it(
    tmp_path: Path, rerun: bool, slower: float, exceeded: bool
) -> None:
    path = write_older(tmp_path, measured("old.onnx", noise(0)))
    older = read(path, rows("new.onnx"))
    if rerun:
        (pair,) = older.pairs
        older = replace(older, pairs=(replace(pair, rerun=pair.row),))
    again = [measured("old.onnx", noise(1))] if rerun else []
    new = [measured("new.onnx", noise(2, slower))]
    regression = compare_with_older(older, new, again, SpeedLimit(path), BenchConfig())
    (ratio,) = regression.comparisons
    assert ratio.exceeded is exceeded
    assert ratio.method == ("rerun" if rerun else "stored")
    assert ratio.ratio_ci95[0] <= ratio.ratio <= ratio.ratio_ci95[1]
    assert ratio.ratio == pytest.approx(slower, rel=0.02)

    report = BenchResult(tuple(new), (), (), 0, 1000, read_environment(), against=regression)
    if not exceeded:
        require_speed(report)
        return
    with pytest.raises(LimitError, match="slower than old") as caught:
        require_speed(report)
    assert caught.value.exit_code == 3
    assert "allowed: 5 %" in caught.value.message


def test_an_interval_that_reaches_into_the_limit_does_not_exceed_it(tmp_path: Path) -> None:
    path = write_older(tmp_path, measured("old.onnx", noise(0)))
    older = read(path, rows("new.onnx"))
    # A machine that is now slower and now faster by up to a third.
    pace = np.random.default_rng(0).permutation(np.linspace(0.7, 1.3, 100))
    new = [measured("new.onnx", noise(2, 1.06) * pace[:, None])]
    (ratio,) = compare_with_older(older, new, [], SpeedLimit(path), BenchConfig()).comparisons
    assert ratio.ratio > 1.05
    assert not ratio.exceeded


@pytest.mark.parametrize(("text", "fraction"), [("5%", 0.05), ("0.1", 0.1), (0.25, 0.25), ("0", 0)])
def test_a_limit_is_a_percentage_or_a_fraction(text: str | float, fraction: float) -> None:
    assert SpeedLimit(Path("old.json"), text).fraction == pytest.approx(fraction)


@pytest.mark.parametrize("text", ["5", "-1%", "much", "5%%"])
def test_other_limits_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="neither a fraction nor a percentage"):
        SpeedLimit(Path("old.json"), text)


def test_a_limit_without_older_results() -> None:
    with pytest.raises(UsageError, match="without ``against``"):
        SpeedLimit(None, "5%")
