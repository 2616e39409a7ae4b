"""What a benchmark measures, as data, and the warnings that its figures call for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from fertool.runtime.foreign import Assumptions

NOISY_RATIO = 1.5
"""A file whose 90th percentile is this many times its median was disturbed."""
FEW_RUNS = 100
"""With fewer runs the 99th percentile is the maximum, and intervals are wide."""


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
    """One profile of a dynamic network: its fraction of the images, and median seconds of one."""

    profile: int
    share: float
    latency_s: float


@dataclass(frozen=True)
class FileResult:
    """The figures of one file; `throughput_per_s` in images.

    From `accuracy` to `n` they are those of `eval`, if it was run. `foreign` is how a file of
    another program was used. `profiles` are a dynamic network's, for passes of one image.
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
    """The speedup of the candidate: the ratio of the medians and its 95 % bootstrap interval."""

    baseline: str
    candidate: str
    speedup: float
    speedup_ci95: tuple[float, float]


WarningKind = Literal["noisy", "few-runs", "other-runtime", "slower", "int8-slower", "undecided"]


@dataclass(frozen=True)
class BenchWarning:
    """What a reader of the figures should know about one file; the report has the sentences."""

    kind: WarningKind
    file: str
    value: float


@dataclass(frozen=True)
class BenchResult:
    """All that a benchmark measured; `as_dict` has the keys of its JSON report."""

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


def find_warnings(
    results: Sequence[FileResult], comparisons: Sequence[SpeedComparison]
) -> tuple[BenchWarning, ...]:
    """Return the warnings about files and their comparisons with the first file."""
    baseline = results[0]
    warnings: list[BenchWarning] = []
    for result in results:
        spread = result.latency_s.p90 / result.latency_s.median
        # The passes of a dynamic network differ by their images.
        if spread > NOISY_RATIO and not result.profiles:
            warnings.append(BenchWarning("noisy", result.file, spread))

    runs = len(baseline.samples_s)
    if runs < FEW_RUNS:
        warnings.append(BenchWarning("few-runs", baseline.file, runs))

    for result, comparison in zip(results[1:], comparisons, strict=True):
        kind = _comparison_warning(baseline, result, comparison.speedup_ci95)
        if kind is not None:
            warnings.append(BenchWarning(kind, result.file, comparison.speedup))
    return tuple(warnings)


def _comparison_warning(
    baseline: FileResult, result: FileResult, speedup_ci95: tuple[float, float]
) -> WarningKind | None:
    low, high = speedup_ci95
    # First, since then a ratio of times compares the runtimes too.
    if result.runtime != baseline.runtime:
        return "other-runtime"
    if high < 1:
        if result.quantized and not baseline.quantized:
            return "int8-slower"
        return "slower"
    if low <= 1:
        return "undecided"
    return None
