"""Time several model files interleaved, so that disturbances of the machine affect all of them."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool import __version__
from fertool.artifact.header import files_of
from fertool.config.benchmark import BenchConfig
from fertool.errors import UsageError
from fertool.registry import RUNTIMES
from fertool.results import (
    BenchResult,
    Environment,
    FileResult,
    Latency,
    ProfileResult,
    SpeedComparison,
)
from fertool.runtime.bench_warnings import find_warnings
from fertool.runtime.interleaved import speedup_ci95, time_interleaved
from fertool.runtime.memory import peak_memory
from fertool.runtime.opening import open_predictor
from fertool.runtime.predictor import Forward, Predictor, largest_batch
from fertool.runtime.threads import limited_threads

DISTINCT_BATCHES = 16
"""Batches that the passes cycle through, the same for every file."""
DYNAMIC_BATCHES = 256
"""The same where a network adapts its work to the image: the figures depend on the images."""

ImageSource = Callable[[Predictor], NDArray[np.uint8]]
"""Returns images uint8 [N, C, S, S] in the shape that a predictor takes."""


@dataclass(frozen=True)
class _Candidate:
    """One file of a benchmark with the batches that are shown to it, each uint8 [B, C, S, S]."""

    predictor: Predictor
    batches: list[NDArray[np.uint8]]
    passes: list[Forward]


def bench(
    paths: Sequence[Path],
    config: BenchConfig,
    images: ImageSource | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> BenchResult:
    """Measure latency, throughput, memory and size of model files; the first one is the baseline.

    Every round runs each file a few times. Without `images` the pixels are seeded noise, which
    costs the same unless a network adapts its work to the image. `on_progress` counts rounds.

    Raises FertoolError for files that cannot be opened and UsageError for a batch size that one
    does not take.
    """
    predictors = _open_all(paths, config)
    dynamic = any(predictor.choose_profile for predictor in predictors)
    most_batches = DYNAMIC_BATCHES if dynamic else DISTINCT_BATCHES
    candidates = []
    for predictor in predictors:
        batches = _make_batches(predictor, config, images, most_batches)
        passes = [predictor.prepare_pass(batch) for batch in batches]
        candidates.append(_Candidate(predictor, batches, passes))

    samples = _time(candidates, config, on_progress)
    results: list[FileResult] = []
    for candidate, times in zip(candidates, samples, strict=True):
        results.append(_file_result(candidate, times.reshape(-1), config))
    # The median of a dynamic network is that of one of its profiles; the mean is of all images.
    typical: Callable[..., Any] = np.mean if dynamic else np.median
    comparisons = _compare(results, samples, config.seed, typical)
    return BenchResult(
        results=tuple(results),
        comparisons=comparisons,
        warnings=find_warnings(results, comparisons),
        warmup=config.warmup,
        runs=config.runs,
        environment=_environment(),
    )


def _open_all(paths: Sequence[Path], config: BenchConfig) -> list[Predictor]:
    """Open and check all files before anything is timed, which may take minutes."""
    predictors = []
    for path in paths:
        predictors.append(open_predictor(path, threads=config.threads, foreign=config.foreign))
    for predictor in predictors:
        _require_batch_size(predictor, config.batch_size)
    return predictors


def _time(
    candidates: Sequence[_Candidate],
    config: BenchConfig,
    on_progress: Callable[[int, int], None] | None,
) -> list[NDArray[np.float64]]:
    """Return the seconds [rounds, block] of each file's passes."""
    predictors = [candidate.predictor for candidate in candidates]
    passes = [candidate.passes for candidate in candidates]
    with limited_threads(predictors, config.threads):
        # One pass each under the limits of time and memory, which the timed ones do without.
        for candidate in candidates:
            candidate.predictor.run_checked(candidate.passes[0], config.batch_size)
        return time_interleaved(passes, config.warmup, config.runs, on_progress)


def _compare(
    results: Sequence[FileResult],
    samples: Sequence[NDArray[np.float64]],
    seed: int,
    typical: Callable[..., Any],
) -> tuple[SpeedComparison, ...]:
    """Return the speedup of each file over the first one, by their `typical` times."""
    baseline = results[0].file
    comparisons: list[SpeedComparison] = []
    for result, times in zip(results[1:], samples[1:], strict=True):
        speedup, interval = speedup_ci95(samples[0], times, seed, typical)
        comparisons.append(SpeedComparison(baseline, result.file, speedup, interval))
    return tuple(comparisons)


def _require_batch_size(predictor: Predictor, batch_size: int) -> None:
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
    predictor: Predictor, config: BenchConfig, images: ImageSource | None, most: int
) -> list[NDArray[np.uint8]]:
    """Return up to `most` batches of images, as many as there are images for and fit the memory."""
    pixels = images(predictor) if images else _noise(predictor, config)
    affordable = max(1, largest_batch(predictor.input) // config.batch_size)
    available = max(1, len(pixels) // config.batch_size)
    count = min(most, affordable, available)
    wanted = count * config.batch_size
    # Repeated where there are fewer images than a single batch has.
    if len(pixels) < wanted:
        pixels = np.resize(pixels, (wanted, *pixels.shape[1:]))
    return np.split(pixels[:wanted], count)


def _noise(predictor: Predictor, config: BenchConfig) -> NDArray[np.uint8]:
    size = predictor.input.size
    shape = (config.batch_size, predictor.channels, size, size)
    return np.random.default_rng(config.seed).integers(0, 256, shape, dtype=np.uint8)


def _profile_results(
    candidate: _Candidate, times: NDArray[np.float64]
) -> tuple[ProfileResult, ...]:
    """Split the times [passes] by the profile of the pass's image, where a pass has one image."""
    choose_profile = candidate.predictor.choose_profile
    batches = candidate.batches
    # A batch of several images can have several profiles, and its time belongs to none of them.
    if choose_profile is None or len(batches[0]) > 1:
        return ()
    profile_of_batch = choose_profile(np.concatenate(batches))
    profile_of_pass = profile_of_batch[np.arange(len(times)) % len(batches)]
    results = []
    for profile in np.unique(profile_of_pass):
        fraction = float((profile_of_batch == profile).mean())
        median_s = float(np.median(times[profile_of_pass == profile]))
        results.append(ProfileResult(int(profile), fraction, median_s))
    return tuple(results)


def _file_result(
    candidate: _Candidate, times: NDArray[np.float64], config: BenchConfig
) -> FileResult:
    predictor = candidate.predictor
    p90, p99 = np.percentile(times, [90, 99])
    latency = Latency(
        median=float(np.median(times)),
        mean=float(times.mean()),
        p90=float(p90),
        p99=float(p99),
        min=float(times.min()),
    )
    peak_rss_bytes = None
    # Optional, since it starts a process for each file.
    if config.memory:
        peak_rss_bytes = peak_memory(
            predictor.path,
            threads=config.threads,
            batch_size=config.batch_size,
            foreign=config.foreign,
        )
    return FileResult(
        file=str(predictor.path),
        runtime=predictor.runtime,
        quantized=predictor.quantized,
        digest=predictor.digest,
        threads=config.threads,
        batch=config.batch_size,
        latency_s=latency,
        throughput_per_s=config.batch_size / latency.mean,
        peak_rss_bytes=peak_rss_bytes,
        size_bytes=sum(file.stat().st_size for file in files_of(predictor.path)),
        params=predictor.params,
        macs=predictor.macs,
        samples_s=tuple(times.tolist()),
        profiles=_profile_results(candidate, times),
        foreign=predictor.assumptions,
    )


def _environment() -> Environment:
    """Return what the figures depend on besides the files; no host name."""
    versions = {"fertool": __version__}
    for runtime in RUNTIMES.names():
        package = RUNTIMES.attribute(runtime, "package", runtime)
        # Some runtimes need not be installed.
        with suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return Environment(
        processor=_processor(),
        cores=os.cpu_count(),
        system=f"{platform.system()} {platform.machine()}",
        python=platform.python_version(),
        versions=versions,
    )


def _processor() -> str:
    # platform.processor() is empty or an architecture on Linux.
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith(("model name", "Model", "Hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
