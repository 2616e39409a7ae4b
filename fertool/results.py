"""The JSON that commands write about what they measured, as types.

`report` draws it, and a sweep resumes from it. Other keys may stand beside these; files of older
versions lack those that have a default here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from fertool.config.evaluation import Tta
from fertool.config.foreign_files import PixelRange
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


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training; `round` and `phase` where a model is trained several times."""

    round: Count = 0
    phase: Text = ""
    epoch: Annotated[int, Meta(ge=1, le=10_000_000)]
    lr: NonNegative = 0.0
    train_loss: Finite
    val_loss: Finite
    val_accuracy: Fraction
    seconds: NonNegative = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form, which has a round only where there are several."""
        shown = asdict(self)
        if not self.round:
            del shown["round"], shown["phase"]
        return shown


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
class DetectionFigures:
    """How many photographs had no face, which count as wrong, and the figures of the others."""

    without_face: Count
    with_face: Headline


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
    tta: Tta = "none"
    single_crop: Headline | None = None
    deduplicated: Headline | None = None
    digest: Text = ""
    foreign: Assumptions | None = None
    detection: DetectionFigures | None = None

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
    """The JSON of `eval`; each file is compared with the first one."""

    results: Annotated[tuple[Evaluation, ...], Meta(min_length=1, max_length=200)]
    comparisons: tuple[AccuracyComparison, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; of a single file its figures stand beside `results` too."""
        report = asdict(self)
        alone = report["results"][0] if len(self.results) == 1 else {}
        return {**alone, **report}


@dataclass(frozen=True)
class Latency:
    """Seconds of one pass over one batch, from uint8 pixels to logits."""

    median: Seconds
    mean: Seconds
    p90: Seconds
    p99: Seconds
    min: Seconds


@dataclass(frozen=True)
class ProfileResult:
    """One profile of a dynamic network: its fraction of the images, and median seconds of one."""

    profile: Count
    share: Fraction
    latency_s: Seconds


@dataclass(frozen=True)
class Assumptions:
    """How a graph of another program is used: its preprocessing, and which output is read.

    A graph with uint8 input gets raw pixels; then `pixel_range` is 0..255, `mean` 0 and `std` 1.
    """

    pixel_range: PixelRange
    mean: tuple[Finite, ...]
    std: tuple[Finite, ...]
    output: Text
    outputs: tuple[Text, ...]

    @property
    def description(self) -> str:
        """A sentence for the reader of the figures."""
        mean = ",".join(f"{value:g}" for value in self.mean)
        std = ",".join(f"{value:g}" for value in self.std)
        preprocessing = f"gets pixels of {self.pixel_range}, less {mean}, divided by {std}"
        if len(self.outputs) == 1:
            return preprocessing
        outputs = ", ".join(self.outputs)
        return f"{preprocessing}; of its outputs {outputs} counts '{self.output}' (``output_name``)"


@dataclass(frozen=True)
class FileResult:
    """One file in the JSON of `bench`; `throughput_per_s` in images.

    From `accuracy` to `n` the figures are those of `eval`, if it was run. `foreign` is how a file
    of another program was used. `profiles` are a dynamic network's, for passes of one image.
    """

    file: Text
    runtime: Name
    threads: Positive
    batch: Positive
    latency_s: Latency
    throughput_per_s: NonNegative
    peak_rss_bytes: Count | None
    size_bytes: Positive
    params: Count | None
    macs: Count | None
    samples_s: Annotated[tuple[Seconds, ...], Meta(min_length=1)]
    quantized: bool = False
    digest: Text = ""
    profiles: Annotated[tuple[ProfileResult, ...], Meta(max_length=100)] = ()
    accuracy: Fraction | None = None
    accuracy_ci95: Interval | None = None
    split: Name | None = None
    n: Positive | None = None
    foreign: Assumptions | None = None

    def __post_init__(self) -> None:
        if self.accuracy is None:
            return
        if self.accuracy_ci95 is None or self.split is None or self.n is None:
            raise ValueError("`accuracy` without `accuracy_ci95`, `split` and `n`")
        _require_inside(self.accuracy, self.accuracy_ci95)


@dataclass(frozen=True)
class SpeedComparison:
    """The speedup of the candidate: the ratio of the medians and its 95 % bootstrap interval."""

    baseline: Text
    candidate: Text
    speedup: Ratio
    speedup_ci95: tuple[Ratio, Ratio]


WarningKind = Literal["noisy", "few-runs", "other-runtime", "slower", "int8-slower", "undecided"]


@dataclass(frozen=True)
class BenchWarning:
    """Something that a reader of the figures should know about one file."""

    kind: WarningKind
    file: Text
    value: NonNegative


@dataclass(frozen=True)
class Environment:
    """Where a benchmark ran; no host name."""

    processor: Text
    cores: Count | None = None
    system: Text = ""
    python: Text = ""
    versions: Annotated[Mapping[Name, Text], Meta(max_length=100)] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchResult:
    """The JSON of `bench`; every other file is compared with the first one."""

    results: Annotated[tuple[FileResult, ...], Meta(min_length=1, max_length=200)]
    comparisons: tuple[SpeedComparison, ...]
    warnings: tuple[BenchWarning, ...]
    warmup: Count
    runs: Positive
    environment: Environment

    def __post_init__(self) -> None:
        if len(self.comparisons) != len(self.results) - 1:
            raise ValueError("`comparisons` has not one entry for each of `results` but the first")
        files = {entry.file for entry in self.results}
        for warning in self.warnings:
            if warning.file not in files:
                raise ValueError("`warnings` names a file that `results` does not have")

    def with_accuracies(self, evaluations: Iterable[Evaluation]) -> BenchResult:
        """Return the result with the accuracies of these evaluations, by file name."""
        by_file = {evaluation.file: evaluation for evaluation in evaluations}
        filled = []
        for result in self.results:
            evaluation = by_file.get(result.file)
            if evaluation is not None:
                result = replace(
                    result,
                    split=evaluation.split,
                    n=evaluation.n,
                    accuracy=evaluation.accuracy,
                    accuracy_ci95=evaluation.accuracy_ci95,
                )
            filled.append(result)
        return replace(self, results=tuple(filled))

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON, seconds and bytes throughout."""
        return asdict(self)


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


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One finished training of a sweep: its options by their names in recipes, and its best epoch.

    `accuracy` and `loss`, in nats, are those of the best epoch on the `n` validation images;
    `best_epoch` counts from 1, through all rounds if there are any. `digest` is that of the model
    file, `fingerprint` that of the step which the file records.
    """

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
    digest: Text = ""
    fingerprint: Text = ""
    history: Epochs

    def __post_init__(self) -> None:
        _require_few_rounds(self.history)
        _require_inside(self.accuracy, self.accuracy_ci95)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        shown = asdict(self)
        shown["history"] = [epoch.as_dict() for epoch in self.history]
        return shown


@dataclass(frozen=True, kw_only=True)
class ConfigSummary:
    """The mean over the seeds of one choice of options.

    The accuracy has the standard deviation of the seeds or, when there is one only, its interval on
    the `n` images.
    """

    options: Options
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1)]
    n: Count = 0
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
class BestTrial:
    """Which trial a model file is of."""

    options: Options
    seed: Seed


@dataclass(frozen=True, kw_only=True)
class SweepResults:
    """OUT.grid.json or OUT.seeds.json: finished trainings and their summaries, each best first."""

    file: Text
    axes: Annotated[
        Mapping[Name, Annotated[tuple[Value, ...], Meta(min_length=1, max_length=50)]],
        Meta(max_length=20),
    ]
    seeds: Annotated[tuple[Seed, ...], Meta(min_length=1, max_length=10_000)]
    finished: bool = False
    best: BestTrial | None
    points: Annotated[tuple[ConfigSummary, ...], Meta(max_length=1000)]
    rows: Annotated[tuple[TrialResult, ...], Meta(max_length=1000)]

    def __post_init__(self) -> None:
        if self.points and (self.best is None or not self.rows):
            raise ValueError("`points` without `best` and `rows`")
        entries: Sequence[Any] = [*self.points, *self.rows]
        for entry in entries:
            self._require_on_axes(entry.options)

    def as_dict(self, *, histories: bool = True) -> dict[str, Any]:
        """Return the JSON form, with or without the epochs of each training."""
        rows = [row.as_dict() for row in self.rows]
        if not histories:
            for row in rows:
                del row["history"]
        return {
            "file": self.file,
            "axes": {name: list(values) for name, values in self.axes.items()},
            "seeds": list(self.seeds),
            "finished": self.finished,
            "best": asdict(self.best) if self.best else None,
            "points": [asdict(point) for point in self.points],
            "rows": rows,
        }

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
