"""Time several model files against each other, interleaved, so that what the machine does in between cancels."""

from __future__ import annotations

import gc
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fertool import __version__
from fertool.errors import UsageError
from fertool.runtime.foreign import Assumptions, ForeignModel
from fertool.runtime.memory import peak_memory
from fertool.runtime.sessions import TIME_LIMIT_S, Forward, Predictor, input_limit, open_predictor

BLOCK = 10
"""The most passes of one file in a row; fewer when that gives less than `MIN_ROUNDS` rounds."""
MIN_ROUNDS = 20
RESAMPLES = 2000
_RESAMPLES_AT_ONCE = 50
NOISY = 1.5
"""A file whose 90th percentile is this many times its median was disturbed."""
DISTINCT_BATCHES, DYNAMIC_BATCHES = 16, 256
"""Batches that the passes cycle through, the same for every file; more where the work depends on the image."""

ImageSource = Callable[[Predictor], NDArray[np.uint8]]
"""Gives images uint8 [N, C, S, S] in the shape that a predictor takes."""


@dataclass(frozen=True)
class BenchConfig:
    """How to measure; `foreign` is about ONNX files without fertool's header."""

    threads: int = 1
    batch_size: int = 1
    warmup: int = 100
    runs: int = 1000
    memory: bool = True
    seed: int = 0
    foreign: ForeignModel = field(default_factory=ForeignModel)
    time_limit_s: float = TIME_LIMIT_S

    def __post_init__(self) -> None:
        least = {"threads": 1, "batch_size": 1, "warmup": 0, "runs": 1}
        for name, lowest in least.items():
            if getattr(self, name) < lowest:
                flag = "--" + name.replace("_", "-")
                raise UsageError(
                    f"{flag} {getattr(self, name)}: must be at least {lowest}",
                    f"for example {flag} 1",
                )


@dataclass(frozen=True)
class Latency:
    """Seconds of one pass over one batch, from uint8 pixels to logits."""

    median: float
    mean: float
    p90: float
    p99: float
    min: float


@dataclass(frozen=True)
class ProfileResult:
    """What the images of one profile of a dynamic network took: their share of all, and the median seconds of one."""

    profile: int
    share: float
    latency_s: float


@dataclass(frozen=True)
class FileResult:
    """One file's figures; `throughput_per_s` in images; from `accuracy` to `n` they are `eval`'s, if it was run.

    `foreign` is how a file of another program was used. `profiles` are a dynamic network's, for passes of one image.
    """

    file: str
    runtime: str
    quantized: bool
    digest: str
    threads: int
    batch: int
    latency_s: Latency
    throughput_per_s: float
    peak_rss_bytes: int | None
    size_bytes: int
    params: int | None
    macs: int | None
    samples_s: tuple[float, ...]
    profiles: tuple[ProfileResult, ...] = ()
    accuracy: float | None = None
    accuracy_ci95: tuple[float, float] | None = None
    split: str | None = None
    n: int | None = None
    foreign: Assumptions | None = None


@dataclass(frozen=True)
class SpeedComparison:
    """How many times faster the candidate is: the ratio of the medians and its 95 % bootstrap interval."""

    baseline: str
    candidate: str
    speedup: float
    speedup_ci95: tuple[float, float]


WarningKind = Literal["noisy", "few-runs", "other-runtime", "slower", "int8-slower", "undecided"]


@dataclass(frozen=True)
class BenchWarning:
    """Something that a reader of the figures should know about one file; the words are the report's."""

    kind: WarningKind
    file: str
    value: float


@dataclass(frozen=True)
class BenchResult:
    """All that a benchmark measured; `as_dict` gives the keys of `bench --json`."""

    results: tuple[FileResult, ...]
    comparisons: tuple[SpeedComparison, ...]
    warnings: tuple[BenchWarning, ...]
    warmup: int
    runs: int
    environment: Mapping[str, Any]

    def with_accuracies(self, accuracies: Mapping[str, Mapping[str, Any]]) -> BenchResult:
        """Return the result with `{split, n, accuracy, accuracy_ci95}` filled in by file name."""
        filled = tuple(replace(entry, **accuracies.get(entry.file, {})) for entry in self.results)
        return replace(self, results=filled)

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, seconds and bytes throughout."""
        return asdict(self)


def bench(
    paths: Sequence[Path],
    config: BenchConfig,
    images: ImageSource | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> BenchResult:
    """Measure latency, throughput, memory and size of model files; the first one is the baseline of the comparisons.

    Every round runs each file a few times, in turn. Without `images` the pixels are seeded noise, which costs the
    same unless a network adapts its work to the image. `on_progress` counts rounds. Raises FertoolError for files
    that cannot be opened and UsageError for a batch size that one does not take.
    """
    predictors = [
        open_predictor(
            path, threads=config.threads, foreign=config.foreign, time_limit_s=config.time_limit_s
        )
        for path in paths
    ]
    for predictor in predictors:
        _check_batch(predictor, config.batch_size)
    dynamic = any(predictor.choose for predictor in predictors)
    batches = [
        _batches(predictor, config, images, DYNAMIC_BATCHES if dynamic else DISTINCT_BATCHES)
        for predictor in predictors
    ]
    passes = [
        [predictor.run_once(batch) for batch in shown]
        for predictor, shown in zip(predictors, batches, strict=True)
    ]
    for predictor, (first, *_) in zip(predictors, passes, strict=True):
        predictor.answer(first, config.batch_size)
    samples = time_interleaved(passes, config.warmup, config.runs, on_progress)
    results = tuple(
        _file_result(predictor, times.reshape(-1), config, shown)
        for predictor, times, shown in zip(predictors, samples, batches, strict=True)
    )
    typical = np.mean if dynamic else np.median
    comparisons = tuple(
        SpeedComparison(
            results[0].file, result.file, *speedup_ci95(samples[0], times, config.seed, typical)
        )
        for result, times in zip(results[1:], samples[1:], strict=True)
    )
    return BenchResult(
        results,
        comparisons,
        find_warnings(results, comparisons),
        config.warmup,
        config.runs,
        _environment(),
    )


def time_interleaved(
    passes: Sequence[Sequence[Forward]],
    warmup: int,
    runs: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> list[NDArray[np.float64]]:
    """Return seconds [rounds, block] for each file; pass number i of a file is `passes[file][i % len]`.

    Each block starts with one pass that is not timed: the one before it was another model's, and left its data in
    the caches.
    """
    block = _block(runs)
    rounds = runs // block
    samples = [np.empty((rounds, block)) for _ in passes]
    for file in passes:
        for index in range(warmup):
            file[index % len(file)]()
    was_enabled = gc.isenabled()
    gc.disable()  # a collection in the middle of a pass would be charged to it
    try:
        for turn in range(rounds):
            for file, times in zip(passes, samples, strict=True):
                file[turn * block % len(file)]()
                for index in range(block):
                    forward = file[(turn * block + index) % len(file)]
                    start = time.perf_counter_ns()
                    forward()
                    times[turn, index] = (time.perf_counter_ns() - start) * 1e-9
            gc.collect(0)
            if on_progress:
                on_progress(turn + 1, rounds)
    finally:
        if was_enabled:
            gc.enable()
    return samples


def speedup_ci95(
    baseline: NDArray[np.float64],
    candidate: NDArray[np.float64],
    seed: int,
    typical: Callable[..., Any] = np.median,
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of the typical times, medians or means of [rounds, block], and its 95 % interval.

    Percentile bootstrap over whole rounds (Efron and Tibshirani 1993, chapter 13), the same rounds for both files:
    what slows the machine for a while slows both, and what follows in a block is not independent.
    """
    generator = np.random.default_rng(seed)
    rounds = len(baseline)
    ratios = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, _RESAMPLES_AT_ONCE):
        drawn = generator.integers(rounds, size=(_RESAMPLES_AT_ONCE, rounds))
        middles = (
            typical(times[drawn].reshape(_RESAMPLES_AT_ONCE, -1), axis=1)
            for times in (baseline, candidate)
        )
        ratios[start : start + _RESAMPLES_AT_ONCE] = np.divide(*middles)
    low, high = np.percentile(ratios, [2.5, 97.5])
    return float(typical(baseline) / typical(candidate)), (float(low), float(high))


def find_warnings(
    results: Sequence[FileResult], comparisons: Sequence[SpeedComparison]
) -> tuple[BenchWarning, ...]:
    """Return what a reader of the figures should know."""
    found: list[BenchWarning] = []
    for result in results:
        spread = result.latency_s.p90 / result.latency_s.median
        if spread > NOISY and not result.profiles:
            found.append(BenchWarning("noisy", result.file, spread))
    if len(results[0].samples_s) < 100:
        found.append(BenchWarning("few-runs", results[0].file, len(results[0].samples_s)))
    for result, comparison in zip(results[1:], comparisons, strict=True):
        low, high = comparison.speedup_ci95
        if result.runtime != results[0].runtime:
            found.append(BenchWarning("other-runtime", result.file, comparison.speedup))
        elif high < 1:
            integer = result.quantized and not results[0].quantized
            found.append(
                BenchWarning(
                    "int8-slower" if integer else "slower", result.file, comparison.speedup
                )
            )
        elif low <= 1:
            found.append(BenchWarning("undecided", result.file, comparison.speedup))
    return tuple(found)


def _block(runs: int) -> int:
    """The largest divisor of `runs` up to BLOCK that leaves MIN_ROUNDS rounds, else 1."""
    most = min(BLOCK, max(1, runs // MIN_ROUNDS))
    return max(size for size in range(1, most + 1) if runs % size == 0)


def _check_batch(predictor: Predictor, batch_size: int) -> None:
    if predictor.batch not in (None, batch_size):
        raise UsageError(
            f"--batch-size {batch_size}: {predictor.path} takes batches of {predictor.batch} only",
            f"use --batch-size {predictor.batch}, or export it with a dynamic batch",
        )
    most = input_limit(predictor.input)
    if batch_size > most:
        raise UsageError(
            f"--batch-size {batch_size}: of the images of {predictor.path} {most} fit the memory",
            f"for example --batch-size {min(256, most)}",
        )


def _batches(
    predictor: Predictor, config: BenchConfig, images: ImageSource | None, most: int
) -> list[NDArray[np.uint8]]:
    pixels = images(predictor) if images else _noise(predictor, config)
    affordable = max(1, input_limit(predictor.input) // config.batch_size)
    count = min(most, affordable, max(1, len(pixels) // config.batch_size))
    wanted = count * config.batch_size
    pixels = (
        np.resize(pixels, (wanted, *pixels.shape[1:])) if len(pixels) < wanted else pixels[:wanted]
    )
    return np.split(pixels, count)


def _noise(predictor: Predictor, config: BenchConfig) -> NDArray[np.uint8]:
    shape = (
        config.batch_size,
        predictor.input.channels,
        predictor.input.size,
        predictor.input.size,
    )
    return np.random.default_rng(config.seed).integers(0, 256, shape, dtype=np.uint8)


def _profiles(
    predictor: Predictor, times: NDArray[np.float64], batches: Sequence[NDArray[np.uint8]]
) -> tuple[ProfileResult, ...]:
    """Split the times [passes] by the profile of the pass's image, where a pass has one image."""
    if predictor.choose is None or len(batches[0]) > 1:
        return ()
    of_batch = predictor.choose(np.concatenate(batches))
    of_pass = of_batch[np.arange(len(times)) % len(batches)]
    return tuple(
        ProfileResult(
            int(number),
            float((of_batch == number).mean()),
            float(np.median(times[of_pass == number])),
        )
        for number in np.unique(of_pass)
    )


def _file_result(
    predictor: Predictor,
    times: NDArray[np.float64],
    config: BenchConfig,
    batches: Sequence[NDArray[np.uint8]],
) -> FileResult:
    p90, p99 = np.percentile(times, [90, 99])
    memory = None
    if config.memory:
        memory = peak_memory(
            predictor.path,
            threads=config.threads,
            batch_size=config.batch_size,
            foreign=config.foreign,
            time_limit_s=config.time_limit_s,
        )
    return FileResult(
        file=str(predictor.path),
        runtime=predictor.runtime,
        quantized=predictor.quantized,
        digest=predictor.digest,
        threads=config.threads,
        batch=config.batch_size,
        latency_s=Latency(
            float(np.median(times)), float(times.mean()), float(p90), float(p99), float(times.min())
        ),
        throughput_per_s=config.batch_size / float(times.mean()),
        peak_rss_bytes=memory,
        size_bytes=predictor.path.stat().st_size,
        params=predictor.params,
        macs=predictor.macs,
        samples_s=tuple(times.tolist()),
        profiles=_profiles(predictor, times, batches),
        foreign=predictor.assumptions,
    )


def _environment() -> dict[str, Any]:
    """What the figures depend on besides the files: processor, system and versions; no host name."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": {
            "fertool": __version__,
            **{name: metadata.version(name) for name in ("onnxruntime", "torch")},
        },
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
