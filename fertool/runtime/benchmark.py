"""Time several model files interleaved, so that disturbances of the machine affect all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.header import files_of
from fertool.config.benchmark import BenchConfig
from fertool.registry import RUNTIMES
from fertool.results import (
    BenchResult,
    BenchWarning,
    FileResult,
    ProfileResult,
    SpeedComparison,
)
from fertool.results.benchmark import baselines
from fertool.runtime.bench_rows import (
    Candidate,
    ImageSource,
    Row,
    open_candidates,
    plan_rows,
    reopen,
)
from fertool.runtime.bench_warnings import find_warnings
from fertool.runtime.energy import EnergyMeter, open_energy_meter
from fertool.runtime.environment import read_environment
from fertool.runtime.fresh_process import FreshProcess, run_fresh_process
from fertool.runtime.interleaved import Passes, block_size, time_interleaved
from fertool.runtime.order_statistics import latency_of, start_time
from fertool.runtime.runtime import Runtime
from fertool.runtime.threads import limited_threads
from fertool.runtime.time_ratios import paired_ratio, ratio_of_means

OnProgress = Callable[[int, int], None]


@dataclass(frozen=True)
class Measurement:
    """What passes in this process tell of the rows of a benchmark.

    `of_rows` has a result for each row, None for one that a file does not take.
    """

    of_rows: tuple[FileResult | None, ...]
    warnings: tuple[BenchWarning, ...]
    energy_source: str
    dynamic: bool

    @property
    def results(self) -> tuple[FileResult, ...]:
        """The results that there are."""
        return tuple(result for result in self.of_rows if result is not None)


def bench(
    paths: Sequence[Path],
    config: BenchConfig,
    images: ImageSource | None = None,
    on_progress: OnProgress | None = None,
) -> BenchResult:
    """Measure latency, throughput, memory and size of model files; the first one is the baseline.

    Every round runs each file a few times. Without `images` the pixels are seeded noise, which
    costs the same unless a network adapts its work to the image. `on_progress` counts rounds.

    Raises FertoolError for files that cannot be opened and UsageError for a batch size that one
    does not take.
    """
    measured = measure_rows(plan_rows(paths, config), config, images, on_progress)
    return summarize(measured, with_starts(measured.results, config), config)


def measure_rows(
    rows: Sequence[Row],
    config: BenchConfig,
    images: ImageSource | None = None,
    on_progress: OnProgress | None = None,
) -> Measurement:
    """Time rows interleaved in this process; then measure energy and, if asked, operators."""
    candidates, warnings = open_candidates(rows, config, images)
    samples = _time(candidates, config, on_progress)
    meter = open_energy_meter()
    results: list[FileResult | None] = [None] * len(rows)
    for candidate, times in zip(candidates, samples, strict=True):
        result = _file_result(candidate, times.reshape(-1), config)
        result = replace(result, energy_j=_energy(candidate, meter, config))
        if config.profile:
            result = _with_operators(result, candidate, config)
            if not result.operators:
                row = candidate.row
                warning = BenchWarning("no-profile", result.file, 0, row.runtime, row.batch_size)
                warnings.append(warning)
        results[candidate.index] = result
    dynamic = any(candidate.predictor.choose_profile for candidate in candidates)
    return Measurement(tuple(results), tuple(warnings), meter.source, dynamic)


def summarize(
    measured: Measurement, results: Sequence[FileResult], config: BenchConfig
) -> BenchResult:
    """Return the comparisons and warnings that results call for, of all that were measured."""
    environment = read_environment()
    comparisons: list[SpeedComparison] = []
    pairs = baselines(results, environment)
    for result, baseline in pairs:
        if baseline is not None:
            # The median of a dynamic network is that of one of its profiles; the mean is of all
            # images.
            comparisons.append(_compare(baseline, result, measured.dynamic, config.seed))
    warnings = find_warnings(pairs, comparisons)
    files = {result.file for result in results}
    warnings += tuple(warning for warning in measured.warnings if warning.file in files)
    return BenchResult(
        results=tuple(results),
        comparisons=tuple(comparisons),
        warnings=warnings,
        warmup=config.warmup,
        runs=config.runs,
        environment=environment,
        energy_source=measured.energy_source,
    )


def with_starts(
    results: Iterable[FileResult], config: BenchConfig, on_progress: OnProgress | None = None
) -> tuple[FileResult, ...]:
    """Add what new processes tell: memory of all results, and start times.

    The latter with the first batch size alone, since loading takes as long with another one.
    `on_progress` counts processes.
    """
    results = list(results)
    found: list[list[FreshProcess]] = [[] for _ in results]
    # Interleaved, so that a disturbance affects each file once.
    order = []
    for number in range(max(config.starts, 1)):
        for index, result in enumerate(results):
            if number < _process_count(result, config):
                order.append(index)
    for done, index in enumerate(order, start=1):
        found[index].append(_run_process(results[index], config))
        if on_progress:
            on_progress(done, len(order))
    filled = []
    for result, processes in zip(results, found, strict=True):
        filled.append(_with_processes(result, processes, config))
    return tuple(filled)


def _process_count(result: FileResult, config: BenchConfig) -> int:
    if result.batch == config.batch_size[0]:
        return max(config.starts, int(config.memory))
    return int(config.memory)


def _run_process(result: FileResult, config: BenchConfig) -> FreshProcess:
    return run_fresh_process(
        Path(result.file),
        runtime=result.runtime,
        threads=config.threads,
        batch_size=result.batch,
        foreign=config.foreign,
    )


def _with_processes(
    result: FileResult, processes: Sequence[FreshProcess], config: BenchConfig
) -> FileResult:
    if config.memory:
        result = replace(result, peak_rss_bytes=processes[0].peak_rss_bytes)
    if not config.starts or result.batch != config.batch_size[0]:
        return result
    return replace(
        result,
        load_s=start_time([process.load_s for process in processes]),
        first_pass_s=start_time([process.first_pass_s for process in processes]),
    )


@dataclass
class _Openings:
    """Opens the candidates anew each time that passes are asked for, but the first time."""

    candidates: Sequence[Candidate]
    config: BenchConfig
    count: int = field(default=0, init=False)

    def open_passes(self) -> Passes:
        """Return the passes of all candidates."""
        if self.count:
            # The former ones are still there, so that the new ones lie elsewhere in memory.
            self.candidates = [reopen(candidate, self.config) for candidate in self.candidates]
        self.count += 1
        return [candidate.passes for candidate in self.candidates]


def _time(
    candidates: Sequence[Candidate], config: BenchConfig, on_progress: OnProgress | None
) -> list[NDArray[np.float64]]:
    """Return the seconds [rounds, block] of each candidate's passes."""
    predictors = [candidate.predictor for candidate in candidates]
    openings = _Openings(candidates, config)
    with limited_threads(predictors, config.threads):
        # One pass each under the limits of time and memory, which the timed ones do without.
        for candidate in candidates:
            candidate.predictor.run_checked(candidate.passes[0], candidate.row.batch_size)
        return time_interleaved(openings.open_passes, config.warmup, config.runs, on_progress)


def _energy(candidate: Candidate, meter: EnergyMeter, config: BenchConfig) -> float | None:
    with limited_threads([candidate.predictor], config.threads):
        return meter.measure(candidate.passes, candidate.row.batch_size)


def _with_operators(result: FileResult, candidate: Candidate, config: BenchConfig) -> FileResult:
    """Add the time by operator, where the runtime has a profiler."""
    member: type[Runtime] = RUNTIMES.load(candidate.row.runtime)
    times = member().profile(candidate.row.path, config.threads, config.foreign, candidate.batches)
    if times is None:
        return result
    return replace(result, operators=times.of_a_pass())


def samples_of(result: FileResult) -> NDArray[np.float64]:
    """Return the seconds [rounds, block] of a result's passes."""
    return np.reshape(result.samples_s, (-1, result.block))


def _compare(baseline: FileResult, result: FileResult, dynamic: bool, seed: int) -> SpeedComparison:
    """Return the speedup of a file over the baseline: by means where the work is dynamic."""
    times = samples_of(baseline), samples_of(result)
    speedup, interval = ratio_of_means(*times, seed) if dynamic else paired_ratio(*times, seed)
    return SpeedComparison(
        baseline.file, result.file, speedup, interval, result.runtime, result.batch
    )


def _profile_results(candidate: Candidate, times: NDArray[np.float64]) -> tuple[ProfileResult, ...]:
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
    candidate: Candidate, times: NDArray[np.float64], config: BenchConfig
) -> FileResult:
    # Imported here, since the store imports torch.
    from fertool.artifact.store import file_digest

    predictor, row = candidate.predictor, candidate.row
    latency = latency_of(times)
    return FileResult(
        file=str(predictor.path),
        runtime=predictor.runtime,
        quantized=predictor.quantized,
        digest=predictor.digest,
        threads=config.threads,
        batch=row.batch_size,
        latency_s=latency,
        throughput_per_s=row.batch_size / latency.mean,
        peak_rss_bytes=None,
        size_bytes=sum(file.stat().st_size for file in files_of(predictor.path)),
        params=predictor.params,
        macs=predictor.macs,
        samples_s=tuple(times.tolist()),
        profiles=_profile_results(candidate, times),
        foreign=predictor.assumptions,
        block=block_size(config.runs),
        sha256=file_digest(row.path),
        environment=read_environment(row.runtime),
    )
