"""The JSON that commands write about what they measured, as types.

`report` draws it, and a sweep resumes from it. Other keys may stand beside these; files of older
versions lack those that have a default here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from msgspec import Meta

from fertool.strict_json import Count, Finite, Fraction, Name, NonNegative, Positive, Seed, Text

Value = bool | Annotated[int, Meta(ge=-(2**53), le=2**53)] | Finite | Text
"""The value of an option."""
Options = Annotated[Mapping[Name, Value], Meta(max_length=100)]
Interval = tuple[Fraction, Fraction]
Seconds = Annotated[float, Meta(gt=0, le=1e9)]
Difference = Annotated[float, Meta(ge=-1, le=1)]
Ratio = Annotated[float, Meta(gt=0, le=1e12)]
_MOST_ROUNDS = 100
_ROUNDING = 1e-9
"""By which an accuracy may lie outside of its own interval."""


@dataclass(frozen=True)
class Epoch:
    """One epoch of a training; `round` and `phase` where a model is trained several times."""

    epoch: Annotated[int, Meta(ge=1, le=10_000_000)]
    train_loss: Finite
    val_loss: Finite
    val_accuracy: Fraction
    lr: NonNegative = 0.0
    seconds: NonNegative = 0.0
    round: Count = 0
    phase: Text = ""


Epochs = Annotated[tuple[Epoch, ...], Meta(min_length=1, max_length=1_000_000)]


@dataclass(frozen=True)
class History:
    """OUT.history.json, or the JSON of a command that trains."""

    history: Epochs
    file: Text = ""

    def __post_init__(self) -> None:
        _require_few_rounds(self.history)


@dataclass(frozen=True)
class Headline:
    """An accuracy and on how many images."""

    n: Positive
    accuracy: Fraction
    accuracy_ci95: Interval

    def __post_init__(self) -> None:
        _require_inside(self.accuracy, self.accuracy_ci95)


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class."""

    precision: Fraction
    recall: Fraction
    f1: Fraction
    n: Count


@dataclass(frozen=True)
class Evaluation(Headline):
    """One file in the JSON of `eval`; `confusion` has a row for each true class."""

    split: Name
    macro_f1: Fraction
    balanced_accuracy: Fraction
    ece: Fraction
    per_class: Annotated[Mapping[Name, ClassFigures], Meta(min_length=1, max_length=65_536)]
    confusion: tuple[tuple[Count, ...], ...]
    file: Text = ""
    tta: Literal["none", "flip", "ten-crop"] = "none"
    single_crop: Headline | None = None
    deduplicated: Headline | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        size = len(self.per_class)
        row_lengths = {len(row) for row in self.confusion}
        if len(self.confusion) != size or row_lengths != {size}:
            raise ValueError(
                f"`confusion` has not {size} rows and columns, one for each of `per_class`"
            )


@dataclass(frozen=True)
class AccuracyComparison:
    """The accuracy of the candidate less that of the baseline, on the same images."""

    baseline: Text
    candidate: Text
    n: Positive
    difference: Difference
    difference_ci95: tuple[Difference, Difference]
    mcnemar_p: Fraction


@dataclass(frozen=True)
class EvaluationReport:
    """The JSON of `eval` on several files."""

    results: Annotated[tuple[Evaluation, ...], Meta(min_length=1, max_length=200)]
    comparisons: tuple[AccuracyComparison, ...] = ()


@dataclass(frozen=True)
class LatencyFigures:
    """Seconds of one pass."""

    median: Seconds
    mean: Seconds
    p90: Seconds
    p99: Seconds
    min: Seconds


@dataclass(frozen=True)
class ProfileFigures:
    """What the images of one profile of a dynamic network took."""

    profile: Count
    share: Fraction
    latency_s: Seconds


@dataclass(frozen=True)
class FileFigures:
    """One file in the JSON of `bench`."""

    file: Text
    runtime: Name
    threads: Positive
    batch: Positive
    latency_s: LatencyFigures
    throughput_per_s: NonNegative
    peak_rss_bytes: Count | None
    size_bytes: Positive
    params: Count | None
    macs: Count | None
    samples_s: Annotated[tuple[Seconds, ...], Meta(min_length=1)]
    accuracy: Fraction | None
    quantized: bool = False
    profiles: Annotated[tuple[ProfileFigures, ...], Meta(max_length=100)] = ()
    accuracy_ci95: Interval | None = None
    split: Name | None = None
    n: Positive | None = None

    def __post_init__(self) -> None:
        if self.accuracy is None:
            return
        if self.accuracy_ci95 is None or self.split is None or self.n is None:
            raise ValueError("`accuracy` without `accuracy_ci95`, `split` and `n`")
        _require_inside(self.accuracy, self.accuracy_ci95)


@dataclass(frozen=True)
class SpeedComparison:
    """How many times faster the candidate is."""

    baseline: Text
    candidate: Text
    speedup: Ratio
    speedup_ci95: tuple[Ratio, Ratio]


@dataclass(frozen=True)
class BenchWarning:
    """Something that a reader of the figures should know about one file."""

    kind: Literal["noisy", "few-runs", "other-runtime", "slower", "int8-slower", "undecided"]
    file: Text
    value: NonNegative


@dataclass(frozen=True)
class Environment:
    """Where a benchmark ran."""

    processor: Text


@dataclass(frozen=True)
class Benchmark:
    """The JSON of `bench`."""

    results: Annotated[tuple[FileFigures, ...], Meta(min_length=1, max_length=200)]
    comparisons: tuple[SpeedComparison, ...]
    warnings: tuple[BenchWarning, ...]
    runs: Positive
    environment: Environment

    def __post_init__(self) -> None:
        # Every other file is compared with the first one.
        if len(self.comparisons) != len(self.results) - 1:
            raise ValueError("`comparisons` has not one entry for each of `results` but the first")
        files = {entry.file for entry in self.results}
        for warning in self.warnings:
            if warning.file not in files:
                raise ValueError("`warnings` names a file that `results` does not have")


@dataclass(frozen=True)
class LayerTraces:
    """The traces of one layer, as `report` shows them."""

    name: Name
    weight_trace: Annotated[tuple[Finite, ...], Meta(min_length=1, max_length=65_536)]
    weight_params: Count
    activation_trace: tuple[Finite, ...] = ()


@dataclass(frozen=True)
class Traces:
    """The JSON of `hessian-sensitivity`, as `report` shows it."""

    model_digest: Name
    samples: Count
    probes: Count
    layers: Annotated[tuple[LayerTraces, ...], Meta(min_length=1, max_length=20_000)]
    hessian: Literal["kl", "cross-entropy"] = "kl"


@dataclass(frozen=True)
class Trial:
    """One finished training of a sweep: its options, the figures of its best epoch, its epochs."""

    options: Options
    seed: Seed
    split: Name
    n: Positive
    accuracy: Fraction
    accuracy_ci95: Interval
    loss: Finite
    best_epoch: Positive
    epochs: Positive
    seconds: NonNegative
    history: Epochs
    digest: Text = ""
    fingerprint: Text = ""

    def __post_init__(self) -> None:
        _require_few_rounds(self.history)


@dataclass(frozen=True)
class Mean:
    """The mean over the seeds of one choice of options; the deviation of one seed is null."""

    options: Options
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    accuracy_mean: Fraction
    accuracy_sd: Annotated[float, Meta(ge=0, le=1)] | None
    accuracy_ci95: Interval | None
    loss_mean: Finite

    def __post_init__(self) -> None:
        if self.accuracy_sd is None:
            if self.accuracy_ci95 is None:
                raise ValueError("neither `accuracy_sd` nor `accuracy_ci95`")
            _require_inside(self.accuracy_mean, self.accuracy_ci95)


@dataclass(frozen=True)
class Best:
    """Which trial a model file is of."""

    options: Options
    seed: Seed


@dataclass(frozen=True)
class Sweep:
    """OUT.grid.json or OUT.seeds.json."""

    file: Text
    axes: Annotated[
        Mapping[Name, Annotated[tuple[Value, ...], Meta(min_length=1, max_length=50)]],
        Meta(max_length=20),
    ]
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1, max_length=10_000)]
    best: Best | None
    points: Annotated[tuple[Mean, ...], Meta(max_length=1000)]
    rows: Annotated[tuple[Trial, ...], Meta(max_length=1000)]

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


def _require_few_rounds(history: tuple[Epoch, ...]) -> None:
    rounds = {record.round for record in history}
    # Each round is a curve of the report's figure.
    if len(rounds) > _MOST_ROUNDS:
        raise ValueError(f"`history` has {len(rounds):,} rounds, more than {_MOST_ROUNDS}")


def _require_inside(accuracy: float, interval: tuple[float, float]) -> None:
    low, high = interval
    # With a tolerance: at 0 and 1 the ends of an interval carry rounding errors.
    if not low - _ROUNDING <= accuracy <= high + _ROUNDING:
        raise ValueError(f"`accuracy` {accuracy} lies outside of its interval")
