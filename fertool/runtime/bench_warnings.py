"""The warnings that the figures of a benchmark call for."""

from __future__ import annotations

from collections.abc import Sequence

from fertool.results import BenchWarning, FileResult, SpeedComparison, WarningKind

NOISY_RATIO = 1.5
"""A file whose 90th percentile is this many times its median was disturbed."""
FEW_RUNS = 100
"""With fewer runs the 99th percentile is the maximum, and intervals are wide."""


def find_warnings(
    pairs: Sequence[tuple[FileResult, FileResult | None]], comparisons: Sequence[SpeedComparison]
) -> tuple[BenchWarning, ...]:
    """Return the warnings about results, each with its baseline, and about their comparisons."""
    warnings: list[BenchWarning] = []
    for result, _ in pairs:
        spread = result.latency_s.p90 / result.latency_s.median
        # The passes of a dynamic network differ by their images.
        if spread > NOISY_RATIO and not result.profiles:
            warnings.append(_warning("noisy", result, spread))

    first, _ = pairs[0]
    runs = len(first.samples_s)
    if runs < FEW_RUNS:
        warnings.append(BenchWarning("few-runs", first.file, runs))

    remaining = iter(comparisons)
    for result, baseline in pairs:
        if baseline is None:
            continue
        comparison = next(remaining)
        kind = _comparison_warning(baseline, result, comparison.speedup_ci95)
        if kind is not None:
            warnings.append(_warning(kind, result, comparison.speedup))
    return tuple(warnings)


def _warning(kind: WarningKind, result: FileResult, value: float) -> BenchWarning:
    return BenchWarning(kind, result.file, value, result.runtime, result.batch)


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
    # The interval has 1 in it: either file may be the faster one.
    if low <= 1:
        return "undecided"
    return None
