"""Options of evaluating model files."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from fertool.config.detection import DETECTION, DetectionConfig
from fertool.config.foreign_files import ForeignModel
from fertool.config.option import check, option
from fertool.errors import UsageError

Split = Literal["train", "val", "test"]
Tta = Literal["none", "flip", "ten-crop"]


@dataclass(frozen=True)
class EvaluationConfig:
    """On which images, and how; raises UsageError for a value that is none of the choices."""

    split: Split = option("val", "val is PublicTest of fer2013.csv, test is PrivateTest.")
    tta: Tta = option("none", "Average the predictions for several views of each image.")
    detect: bool = option(
        False,
        "Find and align the face of each photograph first: the data is no set of crops.",
        panel=DETECTION,
    )
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    foreign: ForeignModel = field(default_factory=ForeignModel)

    def __post_init__(self) -> None:
        check(self)
        if self.detect and self.tta != "none":
            raise UsageError(
                f"``tta={self.tta}`` with ``detect=True``: faces are aligned for one view",
                "leave one of them out",
            )
