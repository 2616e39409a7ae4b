"""What `bench` measures: latency, throughput, memory and size of files, and paired speedups."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from msgspec import Meta

from fertool.results.assumptions import Assumptions
from fertool.results.environment import Environment
from fertool.results.evaluation import Evaluation, Headline
from fertool.results.fields import (
    CI95,
    FileSize,
    Interval,
    Joules,
    MemorySize,
    Ratio,
    RatioInterval,
    Result,
    Seconds,
    SecondsInterval,
    WallTime,
    described,
    require_inside,
)
from fertool.results.imported import MOST_FILES, Agreement, ImportedRun
from fertool.results.regression import SpeedRegression
from fertool.strict_json import Count, Fraction, Name, NonNegative, Positive, Text


@dataclass(frozen=True)
class Latency:
    """The time of one pass over one batch, from uint8 pixels to logits."""

    median: Annotated[Seconds, described("median of the timed passes")]
    mean: Annotated[Seconds, described("mean of the timed passes")]
    p90: Annotated[Seconds, described("90th percentile")]
    p99: Annotated[Seconds, described("99th percentile")]
    min: Annotated[Seconds, described("fastest pass")]


@dataclass(frozen=True)
class ProfileResult:
    """One profile of a dynamic network."""

    profile: Annotated[Count, described("number of the profile, the widest first")]
    share: Annotated[Fraction, described("fraction of the images that it gets")]
    latency_s: Annotated[Seconds, described("median of one image")]


@dataclass(frozen=True)
class StartTime:
    """The seconds that something took in processes that were started for it, one after another."""

    median: Annotated[Seconds, described("median of the processes")]
    median_ci95: Annotated[
        SecondsInterval,
        described("its interval, between two of the samples: 95 % from six processes on"),
    ]
    samples: Annotated[tuple[Seconds, ...], Meta(min_length=1), described("of each process")]


@dataclass(frozen=True)
class OperatorTime:
    """The time of all operators of one kind in a pass, by the runtime's own profiler."""

    operator: Annotated[Text, described("as the runtime names it")]
    calls: Annotated[NonNegative, described("calls in a pass, the mean of all passes")]
    time_s: Annotated[WallTime, described("time in a pass, all calls together")]
    share: Annotated[Fraction, described("fraction of the time of all operators")]


@dataclass(frozen=True)
class FileResult:
    """One file in one runtime, with one batch size, in the JSON of `bench`.

    From `accuracy` to `n` the figures are those of `eval`, if it was run.
    """

    file: Annotated[Text, described("the model file")]
    runtime: Annotated[Name, described("what ran the file, for example `onnxruntime`")]
    threads: Annotated[Positive, described("threads of the runtime")]
    batch: Annotated[Positive, described("images of a pass")]
    latency_s: Annotated[Latency, described("time of one pass, from pixels to logits")]
    throughput_per_s: Annotated[NonNegative, described("images per second")]
    peak_rss_bytes: Annotated[
        MemorySize | None, described("memory of a process that runs only this file")
    ]
    size_bytes: Annotated[FileSize, described("size of the file")]
    params: Annotated[Count | None, described("learned values")]
    macs: Annotated[Count | None, described("multiply-accumulates of one image")]
    samples_s: Annotated[
        tuple[Seconds, ...], Meta(min_length=1), described("time of every timed pass")
    ]
    quantized: Annotated[bool, described("whether its arithmetic is that of integers")] = False
    digest: Annotated[Text, described("digest of the model")] = ""
    profiles: Annotated[
        tuple[ProfileResult, ...],
        Meta(max_length=100),
        described("of a dynamic network, for passes of one image"),
    ] = ()
    accuracy: Annotated[Fraction | None, described("with ``data``: on the validation images")] = (
        None
    )
    accuracy_ci95: Annotated[Interval | None, CI95] = None
    split: Annotated[Name | None, described("which images the accuracy is on")] = None
    n: Annotated[Positive | None, described("images that the accuracy is on")] = None
    foreign: Annotated[
        Assumptions | None, described("what was assumed about a file of another program")
    ] = None
    block: Annotated[
        Positive, described("passes of the file in a row, between those of the other files")
    ] = 1
    sha256: Annotated[Text, described("SHA-256 of the file's bytes")] = ""
    load_s: Annotated[
        StartTime | None, described("opening the file in a new process, its digest checked")
    ] = None
    first_pass_s: Annotated[StartTime | None, described("the first pass in that process")] = None
    operators: Annotated[
        tuple[OperatorTime, ...],
        Meta(max_length=1000),
        described("with ``profile=True``: time by operator, the longest first"),
    ] = ()
    energy_j: Annotated[
        Joules | None, described("energy of one image, of the whole processor; see `energy_source`")
    ] = None
    environment: Annotated[
        Environment | None, described("where this file ran; null: where the benchmark did")
    ] = None
    source: Annotated[
        Text, described("the JSON of a board that the figures are from; empty: measured here")
    ] = ""
    agreement: Annotated[
        Agreement | None, described("of a board: the comparison with the logits of the bundle")
    ] = None

    def __post_init__(self) -> None:
        # An accuracy without interval and images could not be compared with another by `report`,
        # which reads files of any origin.
        if self.accuracy is None:
            return
        if self.accuracy_ci95 is None or self.split is None or self.n is None:
            raise ValueError("`accuracy` without `accuracy_ci95`, `split` and `n`")
        require_inside(self.accuracy, self.accuracy_ci95)

    @property
    def headline(self) -> Headline | None:
        """The accuracy, where it was measured."""
        if self.accuracy is None or self.accuracy_ci95 is None or self.n is None:
            return None
        return Headline(self.n, self.accuracy, self.accuracy_ci95)


@dataclass(frozen=True)
class SpeedComparison:
    """The speedup of the candidate over the first file, by paired times, and its interval."""

    baseline: Annotated[Text, described("the first file")]
    candidate: Annotated[Text, described("the file that is compared with it")]
    speedup: Annotated[Ratio, described("latency of the baseline over the candidate's")]
    speedup_ci95: Annotated[RatioInterval, described("its 95 % interval")]
    runtime: Annotated[Text, described("the candidate's runtime")] = ""
    batch: Annotated[Positive, described("images of a pass, of both")] = 1


WarningKind = Literal[
    "noisy",
    "few-runs",
    "other-runtime",
    "slower",
    "int8-slower",
    "undecided",
    "no-profile",
    "one-batch",
]


@dataclass(frozen=True)
class BenchWarning:
    """Something that a reader of the figures should know about one file."""

    kind: Annotated[WarningKind, described("what it is")]
    file: Annotated[Text, described("which file it is about")]
    value: Annotated[NonNegative, described("the figure that it is about")]
    runtime: Annotated[Text, described("in which runtime; empty: in all")] = ""
    batch: Annotated[Count, described("images of a pass; 0: with any number")] = 0


@dataclass(frozen=True)
class BenchResult(Result):
    """The JSON of `bench`; every file is compared with the first one of its batch size.

    Results of other machines have a first one of their own: times of two machines are never
    compared.
    """

    results: Annotated[
        tuple[FileResult, ...],
        Meta(min_length=1, max_length=200),
        described("one for each file, runtime and batch size, in the order given"),
    ]
    comparisons: Annotated[
        tuple[SpeedComparison, ...], described("one for each result but the first of a batch size")
    ]
    warnings: Annotated[tuple[BenchWarning, ...], described("what a reader should know")]
    warmup: Annotated[Count, described("passes before the timed ones")]
    runs: Annotated[Positive, described("timed passes of each file")]
    environment: Annotated[Environment, described("where the benchmark ran")]
    energy_source: Annotated[
        Text, described("what counted the energy, or why there is no figure of it")
    ] = ""
    against: Annotated[
        SpeedRegression | None, described("with ``against``: the comparison with older results")
    ] = None
    imports: Annotated[
        tuple[ImportedRun, ...],
        Meta(max_length=MOST_FILES),
        described("how the results of boards were measured"),
    ] = ()

    def __post_init__(self) -> None:
        pairs = baselines(self.results, self.environment)
        compared = sum(baseline is not None for _, baseline in pairs)
        if len(self.comparisons) != compared:
            raise ValueError(
                "`comparisons` has not one entry for each of `results` but the first of a batch "
                "size on a machine"
            )
        # A warning is shown beside the figure that it is about: without its file it would be lost.
        files = {entry.file for entry in self.results}
        for warning in self.warnings:
            if warning.file not in files:
                raise ValueError("`warnings` names a file that `results` does not have")

    def compared(self) -> Iterator[tuple[FileResult, FileResult | None, SpeedComparison | None]]:
        """Yield each result with its baseline and the comparison; both None for a baseline."""
        comparisons = iter(self.comparisons)
        for result, baseline in baselines(self.results, self.environment):
            yield result, baseline, None if baseline is None else next(comparisons)

    def comparable_with_first(self) -> list[FileResult]:
        """Return the results on the first one's machine with its batch size."""
        first = self.results[0]
        key = _comparison_key(first, self.environment)
        found = []
        for result in self.results:
            if _comparison_key(result, self.environment) == key:
                found.append(result)
        return found

    def with_accuracies(self, evaluations: Mapping[tuple[str, str], Evaluation]) -> BenchResult:
        """Return the result with the accuracies of these evaluations, by file and runtime."""
        # By name and not by place: not every file that is timed has been evaluated.
        filled = []
        for result in self.results:
            evaluation = evaluations.get((result.file, result.runtime))
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


def baselines(
    results: Iterable[FileResult], environment: Environment
) -> list[tuple[FileResult, FileResult | None]]:
    """Return each result with the first of its batch size on its machine, None for that itself.

    `environment` is that of results that have none of their own.
    """
    first: dict[tuple[object, ...], FileResult] = {}
    pairs: list[tuple[FileResult, FileResult | None]] = []
    for result in results:
        key = _comparison_key(result, environment)
        pairs.append((result, first.get(key)))
        first.setdefault(key, result)
    return pairs


def _comparison_key(result: FileResult, environment: Environment) -> tuple[object, ...]:
    """Return what two results must have in common for their times to be compared."""
    # Two runs were not interleaved, even on one machine.
    return result.batch, result.source, (result.environment or environment).machine
