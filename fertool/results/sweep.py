"""What a sweep over seeds and options finds: OUT.seeds.json or OUT.grid.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from fertool.results.fields import (
    CI95,
    Interval,
    Nats,
    Options,
    Result,
    Value,
    WallTime,
    described,
    require_inside,
    values_of,
)
from fertool.results.training import Epochs
from fertool.strict_json import Count, Fraction, Name, Positive, Seed, Text


@dataclass(frozen=True, kw_only=True)
class TrialFigures(Result):
    """One finished training of a sweep."""

    options: Annotated[Options, described("its varied options, by their names in recipes")]
    seed: Annotated[Seed, described("its seed")]
    split: Annotated[Name, described("which images the figures are on")]
    n: Annotated[Positive, described("images that the figures are on")]
    accuracy: Annotated[Fraction, described("that of the best epoch")]
    accuracy_ci95: Annotated[Interval, CI95]
    loss: Annotated[Nats, described("that of the best epoch")]
    best_epoch: Annotated[Positive, described("from 1, through all rounds if there are any")]
    epochs: Annotated[Positive, described("epochs that it had")]
    seconds: Annotated[WallTime, described("duration of all epochs")]
    digest: Annotated[Text, described("digest of the model file")] = ""
    fingerprint: Annotated[Text, described("digest of the step that the file records")] = ""

    def __post_init__(self) -> None:
        require_inside(self.accuracy, self.accuracy_ci95)


@dataclass(frozen=True, kw_only=True)
class TrialResult(TrialFigures):
    """One finished training of a sweep, with its epochs."""

    history: Epochs

    @property
    def figures(self) -> TrialFigures:
        """The trial without its epochs."""
        return TrialFigures(**values_of(self, TrialFigures))


@dataclass(frozen=True, kw_only=True)
class ConfigSummary(Result):
    """The mean over the seeds of one choice of options.

    The accuracy has the standard deviation of the seeds or, when there is one only, its interval.
    """

    options: Annotated[Options, described("the varied options, by their names in recipes")]
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1), described("the seeds")]
    n: Annotated[Count, described("images that the figures are on")] = 0
    accuracy_mean: Annotated[Fraction, described("mean over the seeds")]
    accuracy_sd: Annotated[
        Annotated[float, Meta(ge=0, le=1)] | None, described("standard deviation over the seeds")
    ]
    accuracy_ci95: Annotated[Interval | None, described("of a single seed: its 95 % interval")]
    loss_mean: Annotated[Nats, described("mean over the seeds")]

    def __post_init__(self) -> None:
        # Figures draw one of the two as bars.
        if self.accuracy_sd is None:
            if self.accuracy_ci95 is None:
                raise ValueError("neither `accuracy_sd` nor `accuracy_ci95`")
            require_inside(self.accuracy_mean, self.accuracy_ci95)


@dataclass(frozen=True)
class BestTrial:
    """Which trial a model file is of."""

    options: Annotated[Options, described("its options")]
    seed: Annotated[Seed, described("its seed")]


@dataclass(frozen=True, kw_only=True)
class SweepSummary(Result):
    """Finished trainings and their means, each best first."""

    file: Annotated[Text, described("the model file of the best one")]
    axes: Annotated[
        Mapping[Name, Annotated[tuple[Value, ...], Meta(min_length=1, max_length=50)]],
        Meta(max_length=20),
        described("the values of each varied option"),
    ]
    seeds: Annotated[
        tuple[Seed, ...], Meta(min_length=1, max_length=10_000), described("the seeds")
    ]
    finished: Annotated[bool, described("whether all trainings are finished")] = False
    best: Annotated[BestTrial | None, described("the training that `file` is of")]
    points: Annotated[
        tuple[ConfigSummary, ...],
        Meta(max_length=1000),
        described("the means of each choice of options, best first"),
    ]
    rows: Annotated[
        tuple[TrialFigures, ...], Meta(max_length=1000), described("the trainings, best first")
    ]

    def __post_init__(self) -> None:
        if self.points and (self.best is None or not self.rows):
            raise ValueError("`points` without `best` and `rows`")
        entries: Sequence[Any] = [*self.points, *self.rows]
        for entry in entries:
            self._require_on_axes(entry.options)

    def _require_on_axes(self, options: Mapping[str, Value]) -> None:
        if options.keys() != self.axes.keys():
            raise ValueError("`options` of a row or point has other keys than `axes`")
        for name, value in options.items():
            if value not in self.axes[name]:
                raise ValueError(
                    "`options` of a row or point has a value that `axes` does not have"
                )


@dataclass(frozen=True, kw_only=True)
class SweepResults(SweepSummary):
    """OUT.grid.json or OUT.seeds.json: the summary, with the epochs of each training."""

    rows: Annotated[
        tuple[TrialResult, ...], Meta(max_length=1000), described("the trainings, best first")
    ]

    @property
    def summary(self) -> SweepSummary:
        """The results without the epochs of each training."""
        rows = tuple(row.figures for row in self.rows)
        return SweepSummary(**values_of(self, SweepSummary, without=("rows",)), rows=rows)
