"""What compression did, in one sentence and a few headline figures.

Each figure is one that a command measured of both files; what was not measured is said to be so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from fertool.report.benchmark_tables import runtime_name
from fertool.report.result_files import ReportData
from fertool.report.units import (
    count_text,
    counted,
    percent_text,
    points_text,
    short_names,
    size_text,
    time_text,
)
from fertool.results import AccuracyComparison, Evaluation, FileResult, ModelSummary

SIGNIFICANCE = 0.05
"""Below this p-value two accuracies count as different."""
# A ratio that rounds to 1.0 tells nothing.
_SAME_RATIO = 0.05


class _OfAFile(Protocol):
    @property
    def file(self) -> str | None: ...

    @property
    def digest(self) -> str: ...


Entry = TypeVar("Entry", bound=_OfAFile)
Value = TypeVar("Value", int, float)


@dataclass(frozen=True)
class HeadlineFigure:
    """One figure of the compressed model, and the same of the baseline."""

    name: str
    after: str
    before: str


@dataclass(frozen=True)
class Pair:
    """The file that all are compared with, the most compressed one, and what is known of both."""

    baseline: str
    candidate: str
    models: tuple[ModelSummary, ModelSummary] | None = None
    results: tuple[FileResult, FileResult] | None = None
    evaluations: tuple[Evaluation, Evaluation] | None = None
    comparison: AccuracyComparison | None = None
    split: str = ""
    speedup: float | None = None
    speedup_ci95: tuple[float, float] = (0, 0)

    @property
    def names(self) -> tuple[str, str]:
        """The shortest names that tell the two files apart."""
        names = short_names([self.baseline, self.candidate])
        return names[self.baseline], names[self.candidate]


def find_pair(found: ReportData) -> Pair | None:
    """Return the first and the last of the files compared, None where there are no two of them.

    The files of a benchmark come first, then those of an evaluation, then the models.
    """
    ends = _first_and_last(found)
    if ends is None:
        return None
    baseline, candidate = ends
    evaluations = _both(found.evaluations, baseline, candidate)
    split = ""
    if evaluations is not None:
        split = evaluations[0].split
    elif found.mistakes is not None:
        split = found.mistakes.split
    pair = Pair(
        baseline=str(baseline.file),
        candidate=str(candidate.file),
        models=_both(found.models, baseline, candidate),
        evaluations=evaluations,
        split=split,
        comparison=_find_comparison(found, baseline, candidate),
    )
    return _with_speed(pair, found, baseline, candidate)


def _first_and_last(found: ReportData) -> tuple[_OfAFile, _OfAFile] | None:
    for report in found.benchmarks:
        pairs: list[tuple[FileResult, FileResult]] = []
        # The first of a machine or a batch size is compared with none.
        for result, baseline, _ in report.compared():
            if baseline is not None:
                pairs.append((baseline, result))
        # What was measured here comes before the results of boards.
        pairs.sort(key=lambda pair: bool(pair[1].source))
        here = [pair for pair in pairs if pair[1].source == pairs[0][1].source]
        if here:
            return here[-1]
    for comparisons in found.comparisons:
        first = _by_name(found.evaluations, comparisons[0].baseline)
        last = _by_name(found.evaluations, comparisons[-1].candidate)
        if first is not None and last is not None:
            return first, last
    if len(found.models) > 1:
        return found.models[0], found.models[-1]
    return None


def _by_name(evaluations: Iterable[Evaluation], file: str) -> Evaluation | None:
    for evaluation in evaluations:
        if evaluation.file == file:
            return evaluation
    return None


def _is_same(one: _OfAFile, other: _OfAFile) -> bool:
    """Return whether two results are of one network: the same file, or the same digest."""
    if one.digest and other.digest:
        return one.digest == other.digest
    return one.file == other.file


def _find(entries: Iterable[Entry], wanted: _OfAFile) -> Entry | None:
    for entry in entries:
        if _is_same(entry, wanted):
            return entry
    return None


def _both(
    entries: Iterable[Entry], baseline: _OfAFile, candidate: _OfAFile
) -> tuple[Entry, Entry] | None:
    entries = list(entries)
    first, last = _find(entries, baseline), _find(entries, candidate)
    if first is None or last is None:
        return None
    return first, last


def _find_comparison(
    found: ReportData, baseline: _OfAFile, candidate: _OfAFile
) -> AccuracyComparison | None:
    """Return the paired test of the two: of evaluations that are of the same networks."""
    for comparisons in found.comparisons:
        for entry in comparisons:
            of_baseline = _is_named(found, entry.baseline, baseline)
            if of_baseline and _is_named(found, entry.candidate, candidate):
                return entry
    return None


def _is_named(found: ReportData, file: str, wanted: _OfAFile) -> bool:
    evaluation = _by_name(found.evaluations, file)
    if evaluation is None:
        return file == wanted.file
    return _is_same(evaluation, wanted)


def _with_speed(pair: Pair, found: ReportData, baseline: _OfAFile, candidate: _OfAFile) -> Pair:
    for report in found.benchmarks:
        for result, first, comparison in report.compared():
            if first is None or comparison is None or not _is_same(first, baseline):
                continue
            if _is_same(result, candidate):
                return replace(
                    pair,
                    results=(first, result),
                    speedup=comparison.speedup,
                    speedup_ci95=comparison.speedup_ci95,
                )
    return pair


def verdict_text(pair: Pair) -> str:
    """Return one sentence: how much smaller and faster, and what that cost in accuracy."""
    baseline, candidate = pair.names
    parts = [_size_part(pair), _speed_part(pair), _accuracy_part(pair)]
    return f"{candidate} against {baseline}: {', '.join(parts)}."


def _size_part(pair: Pair) -> str:
    sizes = _sizes(pair)
    if sizes is None:
        return "size not compared"
    before, after = sizes
    return _ratio_text(before / after, "smaller", "larger", "of the same size")


def _sizes(pair: Pair) -> tuple[int, int] | None:
    # Both of one source: an ONNX file beside a .pt of another network would mislead.
    known = pair.results or pair.models
    if known is None or not known[1].size_bytes:
        return None
    return known[0].size_bytes, known[1].size_bytes


def _speed_part(pair: Pair) -> str:
    if pair.speedup is None or pair.results is None:
        return "speed not measured"
    low, high = pair.speedup_ci95
    if low <= 1 <= high:
        return "not measurably faster or slower"
    text = _ratio_text(pair.speedup, "faster", "slower", "as fast")
    first, second = pair.results
    if first.runtime != second.runtime:
        text += f" ({runtime_name(second.runtime)} against {runtime_name(first.runtime)})"
    return text


def _ratio_text(ratio: float, if_above: str, if_below: str, if_same: str) -> str:
    if abs(ratio - 1) < _SAME_RATIO:
        return if_same
    if ratio > 1:
        return f"{_factor_text(ratio)} x {if_above}"
    return f"{_factor_text(1 / ratio)} x {if_below}"


def _factor_text(factor: float) -> str:
    # With two digits 9.96 is 10, not 10.0.
    return f"{factor:.1f}" if factor < 9.95 else f"{factor:.0f}"


def _accuracy_part(pair: Pair) -> str:
    comparison = pair.comparison
    if comparison is None:
        return _untested_part(pair)
    on = f"n {comparison.n:,}"
    if pair.split:
        on = f"{pair.split}, {on}"
    p = comparison.mcnemar_p
    p_text = f"p {p:.2g}"
    if p < 0.001:
        p_text = "p < 0.001"
    meaning = "not distinguishable"
    if p < SIGNIFICANCE:
        meaning = "more than chance"
    points = points_text(comparison.difference)
    return f"{points} of accuracy, {meaning} ({on}, {p_text})"


def _untested_part(pair: Pair) -> str:
    """Return the difference of two accuracies without a paired test, or that none is known."""
    if pair.models is None:
        return "accuracy not compared"
    before, after = pair.models[0].metrics, pair.models[1].metrics
    if before is None or after is None or (before.split, before.n) != (after.split, after.n):
        return "accuracy not compared"
    points = points_text(after.accuracy - before.accuracy)
    return f"{points} of accuracy by their headers ({after.split}, n {after.n:,}; no paired test)"


def headline_figures(pair: Pair) -> list[HeadlineFigure]:
    """Return the figures behind the verdict: size, latency, accuracy and work, as far as known."""
    figures = []
    sizes = _sizes(pair)
    if sizes is not None:
        figures.append(_headline("file size", size_text, *sizes))
    if pair.results is not None:
        before, after = (entry.latency_s.median for entry in pair.results)
        name = f"latency, {counted(pair.results[0].threads, 'thread')}"
        figures.append(_headline(name, time_text, before, after))
    if pair.evaluations is not None:
        first, last = pair.evaluations
        name = f"accuracy, {last.split}"
        figures.append(
            HeadlineFigure(name, percent_text(last.accuracy), percent_text(first.accuracy))
        )
    known = pair.results or pair.models
    if known is not None and known[0].macs and known[1].macs and known[0].macs != known[1].macs:
        figures.append(_headline("MACs", count_text, known[0].macs, known[1].macs))
    return figures


def _headline(
    name: str, text: Callable[[Value], str], before: Value, after: Value
) -> HeadlineFigure:
    return HeadlineFigure(name, text(after), text(before))
