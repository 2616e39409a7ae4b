"""What `bench` measures: latency, throughput, memory and size of files, and paired speedups."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from msgspec import Meta

from fertool.results.assumptions import Assumptions
from fertool.results.evaluation import Evaluation, Headline
from fertool.results.fields import (
    FileSize,
    Interval,
    MemorySize,
    Ratio,
    RatioInterval,
    Result,
    Seconds,
    described,
    require_inside,
)
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
class FileResult:
    """One file in the JSON of `bench`.

    From `accuracy` to `n` the figures are those of `eval`, if it was run.
    """

    file: Annotated[Text, described("the model file")]
    runtime: Annotated[Name, described("`onnxruntime` or `torch`")]
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
    accuracy_ci95: Annotated[Interval | None, described("its 95 % interval, Wilson's")] = None
    split: Annotated[Name | None, described("which images the accuracy is on")] = None
    n: Annotated[Positive | None, described("images that the accuracy is on")] = None
    foreign: Annotated[
        Assumptions | None, described("what was assumed about a file of another program")
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
    """The speedup of the candidate: the ratio of the medians and its bootstrap interval."""

    baseline: Annotated[Text, described("the first file")]
    candidate: Annotated[Text, described("the file that is compared with it")]
    speedup: Annotated[Ratio, described("latency of the baseline over the candidate's")]
    speedup_ci95: Annotated[RatioInterval, described("its 95 % bootstrap interval")]


WarningKind = Literal["noisy", "few-runs", "other-runtime", "slower", "int8-slower", "undecided"]


@dataclass(frozen=True)
class BenchWarning:
    """Something that a reader of the figures should know about one file."""

    kind: Annotated[WarningKind, described("what it is")]
    file: Annotated[Text, described("which file it is about")]
    value: Annotated[NonNegative, described("the figure that it is about")]


@dataclass(frozen=True)
class Environment:
    """Where a benchmark ran; no host name."""

    processor: Annotated[Text, described("name of the processor")]
    cores: Annotated[Count | None, described("cores that the process may use")] = None
    system: Annotated[Text, described("operating system")] = ""
    python: Annotated[Text, described("version of Python")] = ""
    versions: Annotated[
        Mapping[Name, Text], Meta(max_length=100), described("versions of the libraries")
    ] = field(default_factory=dict)


@dataclass(frozen=True)
class BenchResult(Result):
    """The JSON of `bench`; every other file is compared with the first one."""

    results: Annotated[
        tuple[FileResult, ...],
        Meta(min_length=1, max_length=200),
        described("one for each file, in the order given"),
    ]
    comparisons: Annotated[
        tuple[SpeedComparison, ...], described("one for each file but the first")
    ]
    warnings: Annotated[tuple[BenchWarning, ...], described("what a reader should know")]
    warmup: Annotated[Count, described("passes before the timed ones")]
    runs: Annotated[Positive, described("timed passes of each file")]
    environment: Annotated[Environment, described("where the benchmark ran")]

    def __post_init__(self) -> None:
        if len(self.comparisons) != len(self.results) - 1:
            raise ValueError("`comparisons` has not one entry for each of `results` but the first")
        # A warning is shown beside the figure that it is about: without its file it would be lost.
        files = {entry.file for entry in self.results}
        for warning in self.warnings:
            if warning.file not in files:
                raise ValueError("`warnings` names a file that `results` does not have")

    def with_accuracies(self, evaluations: Iterable[Evaluation]) -> BenchResult:
        """Return the result with the accuracies of these evaluations, by file name."""
        # By name and not by place: not every file that is timed has been evaluated.
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
