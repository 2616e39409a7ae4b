"""Whether files have lost more accuracy than allowed, for CI."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fertool.config.evaluation import AccuracyLimit
from fertool.errors import LimitError, UsageError
from fertool.results import AccuracyComparison, AccuracyRegression, EvaluationReport
from fertool.workflows.model import Model


def with_baseline(baseline: Path, models: Sequence[Model | str | Path]) -> list[Model | str | Path]:
    """Return the models after their baseline, which may be one of them.

    Raises UsageError where it is the only one.
    """
    others: list[Model | str | Path] = []
    for model in models:
        is_baseline = not isinstance(model, Model) and _is_same_file(Path(model), baseline)
        if not is_baseline:
            others.append(model)
    if not others:
        raise UsageError(
            f"``not_worse_than={baseline}``: there is no other file to compare with it",
            "name the new file as well",
        )
    return [baseline, *others]


def _is_same_file(one: Path, other: Path) -> bool:
    # A file under two names would pass any limit.
    return one.resolve() == other.resolve()


def find_losses(
    comparisons: Sequence[AccuracyComparison], limit: AccuracyLimit
) -> AccuracyRegression:
    """Return which files miss the limit, by the 95 % intervals of their paired differences.

    A file fails if the whole interval lies below the allowed loss, so that chance alone fails one
    in 40 files that lose just as much as allowed, and fewer of the others. If the limit is
    `strict`, it passes only if the whole interval lies above: the test of non-inferiority, in which
    too few images fail a file that has lost nothing.
    """
    exceeded = []
    for entry in comparisons:
        low, high = entry.difference_ci95
        is_worse = high < -limit.margin
        if limit.strict:
            is_worse = low < -limit.margin
        if is_worse:
            exceeded.append(entry.candidate)
    return AccuracyRegression(
        baseline=comparisons[0].baseline,
        points=100 * limit.margin,
        strict=limit.strict,
        exceeded=tuple(exceeded),
    )


def require_accuracy(report: EvaluationReport) -> None:
    """Raise LimitError if a file of an evaluation is worse than its limit allows."""
    limit = report.limit
    if not isinstance(limit, AccuracyRegression) or not limit.exceeded:
        return
    texts = []
    for entry in report.comparisons:
        if entry.candidate not in limit.exceeded:
            continue
        low, high = (100 * bound for bound in entry.difference_ci95)
        texts.append(
            f"{entry.candidate}: {100 * entry.difference:+.2f} points against {entry.baseline} "
            f"(95 % interval {low:+.2f} to {high:+.2f}, n = {entry.n:,})"
        )
    if limit.strict:
        allowed = f"not certain to lose at most {limit.points:g} points"
    else:
        allowed = f"allowed to lose {limit.points:g} points"
    raise LimitError(
        f"{'; '.join(texts)}; {allowed}",
        "the figures of each class tell where; or allow more: ``points``",
    )
