"""What comes back from a board: agreement with the machine that exported, and how it was run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import Meta

from fertool.results.environment import Environment
from fertool.results.fields import described
from fertool.strict_json import Count, Finite, Fraction, Positive, Text

MOST_FILES = 200


@dataclass(frozen=True)
class Agreement:
    """The test cases of a bundle, by the board that ran it."""

    n: Annotated[Positive, described("images")]
    top1_agreement: Annotated[Fraction, described("fraction of the images of the same class")]
    max_probability_diff: Annotated[
        Fraction, described("largest difference of a probability (softmax of the logits)")
    ]
    correct: Annotated[
        Count | None, described("images whose class is the label; null without labels")
    ]

    def __post_init__(self) -> None:
        if self.correct is not None and self.correct > self.n:
            raise ValueError("`correct` is more than `n`")


@dataclass(frozen=True)
class BoardFailure:
    """A file that did not run."""

    file: Annotated[Text, described("name of the file")]
    error: Annotated[Text, described("what happened")]


@dataclass(frozen=True, kw_only=True)
class BoardRun:
    """How a bundle was run on a board."""

    environment: Annotated[Environment, described("the machine that ran it")]
    threads: Annotated[Positive, described("threads of a pass")]
    warmup: Annotated[Count, described("passes before the timed ones")]
    failed: Annotated[
        tuple[BoardFailure, ...], Meta(max_length=MOST_FILES), described("files that did not run")
    ] = ()
    celsius_before: Annotated[
        Finite | None, described("temperature of the processor before, in °C")
    ] = None
    celsius_after: Annotated[Finite | None, described("and after the timed passes")] = None


@dataclass(frozen=True, kw_only=True)
class ImportedRun(BoardRun):
    """A run that `bench` imported."""

    source: Annotated[Text, described("the JSON that the board printed")]
    runs: Annotated[Positive, described("timed passes of each file")]
