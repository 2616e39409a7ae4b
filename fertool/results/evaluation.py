"""What `eval` measures: accuracy and figures of each class, and paired comparisons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import UNSET, Meta, UnsetType

from fertool.config.corruptions import REFERENCE
from fertool.config.evaluation import Tta
from fertool.gate_spec import RoutingMetrics
from fertool.results.assumptions import Assumptions
from fertool.results.fields import (
    CI95,
    DifferenceInterval,
    Interval,
    Result,
    described,
    require_inside,
)
from fertool.results.regression import AccuracyRegression
from fertool.strict_json import Count, Difference, Fraction, Name, NonNegative, Positive, Text

_REFERENCE = ", ".join(f"{name} {strength:g}" for name, strength in REFERENCE)


@dataclass(frozen=True)
class Headline(Result):
    """An accuracy and on how many images."""

    n: Annotated[Positive, described("images")]
    accuracy: Annotated[Fraction, described("fraction of right predictions")]
    accuracy_ci95: Annotated[Interval, CI95]

    def __post_init__(self) -> None:
        require_inside(self.accuracy, self.accuracy_ci95)


@dataclass(frozen=True)
class ClassFigures:
    """The figures of one class."""

    precision: Annotated[Fraction, described("fraction of the images predicted as the class")]
    recall: Annotated[Fraction, described("fraction of the class's images")]
    f1: Annotated[Fraction, described("harmonic mean of the two")]
    n: Annotated[Count, described("images of the class")]


@dataclass(frozen=True)
class DetectionFigures:
    """How many photographs had no face, and the figures of the others."""

    without_face: Annotated[Count, described("photographs without a face, which count as wrong")]
    with_face: Annotated[Headline, described("the figure of the others")]


@dataclass(frozen=True)
class ProfileFigures:
    """The images that one profile of a dynamic network classified."""

    profile: Annotated[Count, described("number of the profile, the widest first")]
    share: Annotated[Fraction, described("fraction of the images that it classifies")]
    n: Annotated[Count, described("images that it classifies")]
    accuracy: Annotated[Fraction | None, described("on these images; null for none")]


@dataclass(frozen=True)
class CorruptionLevel(Headline):
    """The accuracy on the images under one corruption at one strength."""

    strength: Annotated[NonNegative, described("in the unit of the corruption")]
    relative_accuracy: Annotated[
        NonNegative | None, described("accuracy over that of the clean images; null where it is 0")
    ]
    difference: Annotated[Difference, described("accuracy less that of the clean images")]
    difference_ci95: Annotated[DifferenceInterval, described("its 95 % interval, paired")]


@dataclass(frozen=True)
class RelativeMean:
    """The mean of relative accuracies, of `levels` of corruptions."""

    levels: Annotated[Positive, described("levels that the mean is taken of")]
    relative_accuracy: Annotated[
        NonNegative, described("mean accuracy over the accuracy of the clean images")
    ]
    relative_accuracy_ci95: Annotated[
        tuple[NonNegative, NonNegative], described("its 95 % interval, over the images")
    ]


@dataclass(frozen=True)
class CorruptionFigures:
    """The figures under one corruption."""

    unit: Annotated[Name, described("what the strength of a level is")]
    levels: Annotated[
        tuple[CorruptionLevel, ...],
        Meta(min_length=1, max_length=100),
        described("the mildest first"),
    ]
    mean: Annotated[RelativeMean | None, described("of its levels")]


@dataclass(frozen=True)
class Corruptions:
    """The figures of one file under corruptions of its images."""

    seed: Annotated[Count, described("of the noise, of hidden places and of shifts")]
    by_name: Annotated[
        Mapping[Name, CorruptionFigures],
        Meta(min_length=1, max_length=100),
        described("by corruption"),
    ]
    mean: Annotated[RelativeMean | None, described("of all levels that were measured")]
    reference: Annotated[
        RelativeMean | None,
        described(f"of {_REFERENCE}; null unless all were measured"),
    ]


@dataclass(frozen=True)
class Evaluation(Headline):
    """One file in the JSON of `eval`."""

    split: Annotated[
        Name, described("which images: `train`, `val`, `test`, or `all` without split folders")
    ]
    macro_f1: Annotated[Fraction, described("mean of the classes' F1")]
    balanced_accuracy: Annotated[Fraction, described("mean of the classes' recall")]
    ece: Annotated[Fraction, described("expected calibration error, 15 bins")]
    per_class: Annotated[
        Mapping[Name, ClassFigures], Meta(min_length=1, max_length=65_536), described("by class")
    ]
    confusion: Annotated[
        tuple[tuple[Count, ...], ...],
        described("images: a row for each true class, a column for each predicted one"),
    ]
    file: Annotated[Text, described("the model file")] = ""
    tta: Annotated[Tta, described("test-time augmentation")] = "none"
    single_crop: Annotated[Headline | None, described("with ``tta``: the figure without it")] = None
    deduplicated: Annotated[
        Headline | None, described("the figure without exact copies of training images")
    ] = None
    digest: Annotated[Text, described("digest of the model")] = ""
    foreign: Annotated[
        Assumptions | None, described("what was assumed about a file of another program")
    ] = None
    detection: Annotated[
        DetectionFigures | None,
        described("with ``detect``; ``per_class`` and ``confusion`` then have `no face` as well"),
    ] = None
    profiles: Annotated[
        tuple[ProfileFigures, ...], Meta(max_length=100), described("of a dynamic network")
    ] = ()
    routing: Annotated[
        RoutingMetrics | None,
        described("of a dynamic network in a `.pt` file: its choice against a random one"),
    ] = None

    corruptions: Annotated[Corruptions | UnsetType, described("with ``corruptions``")] = UNSET

    def __post_init__(self) -> None:
        super().__post_init__()
        size = len(self.per_class)
        # The shape cannot be told by a type, and the page draws the matrix with the names of
        # `per_class`.
        row_lengths = {len(row) for row in self.confusion}
        if len(self.confusion) != size or row_lengths != {size}:
            raise ValueError(
                f"`confusion` has not {size} rows and columns, one for each of `per_class`"
            )


@dataclass(frozen=True)
class AccuracyComparison(Result):
    """The accuracy of the candidate less that of the baseline, on the same images."""

    baseline: Annotated[Text, described("the first file")]
    candidate: Annotated[Text, described("the file that is compared with it")]
    n: Annotated[Positive, described("images")]
    difference: Annotated[Difference, described("accuracy of the candidate less the baseline's")]
    difference_ci95: Annotated[DifferenceInterval, described("its 95 % interval")]
    mcnemar_p: Annotated[Fraction, described("p-value of McNemar's test")]


@dataclass(frozen=True)
class EvaluationReport(Result):
    """The JSON of `eval`; each file is compared with the first one."""

    results: Annotated[
        tuple[Evaluation, ...],
        Meta(min_length=1, max_length=200),
        described("one for each file, in the order given"),
    ]
    comparisons: Annotated[
        tuple[AccuracyComparison, ...], described("one for each file but the first")
    ] = ()
    limit: Annotated[
        AccuracyRegression | UnsetType, described("with ``not_worse_than``: what it found")
    ] = UNSET

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; of a single file its figures stand beside `results` too."""
        report = super().as_dict()
        # Most calls are of one file, and scripts want its figures without a list around them.
        alone = report["results"][0] if len(self.results) == 1 else {}
        return {**alone, **report}
