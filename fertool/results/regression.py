"""What `bench` and `eval` say about a limit that a new file must keep, for use in CI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

from fertool.results.fields import Ratio, RatioInterval, Seconds, described
from fertool.strict_json import NonNegative, Positive, Text

Method = Literal["rerun", "stored"]


@dataclass(frozen=True)
class AccuracyRegression:
    """Whether files keep the limit that they may be worse than an older file by."""

    baseline: Annotated[Text, described("the older file")]
    points: Annotated[NonNegative, described("points of accuracy that may be lost")]
    strict: Annotated[bool, described("whether it must be certain that no more is lost")]
    exceeded: Annotated[tuple[Text, ...], described("the files that miss the limit")]


@dataclass(frozen=True)
class TimeRatio:
    """How much longer a pass of a new file takes than one of the old file."""

    baseline: Annotated[Text, described("the old file")]
    candidate: Annotated[Text, described("the new file")]
    runtime: Annotated[Text, described("what ran both")]
    batch: Annotated[Positive, described("images of a pass, of both")]
    method: Annotated[
        Method,
        described(
            "`rerun`: both files ran now, interleaved; `stored`: the old times are those of the "
            "older results"
        ),
    ]
    baseline_s: Annotated[Seconds, described("median of the old file")]
    candidate_s: Annotated[Seconds, described("median of the new file")]
    ratio: Annotated[Ratio, described("time of the new file over that of the old one")]
    ratio_ci95: Annotated[RatioInterval, described("its 95 % interval")]
    exceeded: Annotated[
        bool, described("whether the whole interval lies above 1 and the allowed regression")
    ]


@dataclass(frozen=True)
class SpeedRegression:
    """The comparison of new files with the results of an older benchmark."""

    file: Annotated[Text, described("the JSON with the older results")]
    max_regression: Annotated[NonNegative, described("allowed increase of the time, a fraction")]
    comparisons: Annotated[
        tuple[TimeRatio, ...], Meta(min_length=1), described("one for each new result")
    ]

    @property
    def exceeded(self) -> tuple[TimeRatio, ...]:
        """The comparisons that miss the limit."""
        return tuple(entry for entry in self.comparisons if entry.exceeded)
