"""How the logits of a file on another machine compare with those of the one that exported it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fertool.results.fields import described
from fertool.strict_json import Count, Fraction, Positive


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
