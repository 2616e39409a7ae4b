"""Options of evaluating model files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fertool.config.foreign_files import ForeignModel
from fertool.config.option import check, option

Split = Literal["train", "val", "test"]
Tta = Literal["none", "flip", "ten-crop"]


@dataclass(frozen=True)
class EvaluationConfig:
    """On which images, and how; raises UsageError for a value that is none of the choices."""

    split: Split = option("val", "val is PublicTest of fer2013.csv, test is PrivateTest.")
    tta: Tta = option("none", "Average the predictions for several views of each image.")
    foreign: ForeignModel = field(default_factory=ForeignModel)

    def __post_init__(self) -> None:
        check(self)
