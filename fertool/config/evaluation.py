"""Options of evaluating model files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fertool.config.corruptions import ALL, CORRUPTIONS
from fertool.config.detection import DETECTION, DetectionConfig
from fertool.config.foreign_files import ForeignModel
from fertool.config.option import check, option
from fertool.config.panels import LIMIT
from fertool.errors import UsageError, unknown_name

CORRUPTION = "Corruptions"

Split = Literal["train", "val", "test"]
Tta = Literal["none", "flip", "ten-crop"]


@dataclass(frozen=True)
class AccuracyLimit:
    """How much worse than another file files may be; raises UsageError for options without it."""

    not_worse_than: Path | None = option(
        None,
        "Fail with exit code 3 if a file is worse than this one by more than ``points``, beyond "
        "doubt: if the whole 95 % interval of the paired difference is below. It is the baseline.",
        panel=LIMIT,
        metavar="OLD",
    )
    points: float | None = option(
        None,
        "Points of accuracy that may be lost. Default: 0.",
        panel=LIMIT,
        minimum=0,
        maximum=100,
    )
    strict: bool = option(
        False,
        "Fail unless it is certain that no more is lost: unless the whole interval is above. Needs "
        "more images.",
        panel=LIMIT,
    )

    def __post_init__(self) -> None:
        check(self)
        if self.not_worse_than is not None:
            return
        given = f"``points={self.points:g}``" if self.points is not None else "``strict=True``"
        if self.points is not None or self.strict:
            raise UsageError(
                f"{given} without ``not_worse_than``",
                "name the file to compare with: ``not_worse_than=OLD.onnx``",
            )

    @property
    def margin(self) -> float:
        """The allowed loss of accuracy, a fraction of the images."""
        return (self.points or 0.0) / 100


@dataclass(frozen=True)
class EvaluationConfig:
    """On which images, and how; raises UsageError for a value that is none of the choices."""

    split: Split = option("val", "val is PublicTest of fer2013.csv, test is PrivateTest.")
    tta: Tta = option("none", "Average the predictions for several views of each image.")
    corruptions: tuple[str, ...] = option(
        (),
        "Measure the accuracy under these corruptions too, each at five levels: all, or some of "
        f"{', '.join(CORRUPTIONS)}.",
        panel=CORRUPTION,
        metavar="NAMES",
        separator=",",
    )
    corruption_seed: int | None = option(
        None,
        "Seed of the noise, the places that are hidden and the directions of shifts. Default: 0.",
        panel=CORRUPTION,
        minimum=0,
        maximum=2**31,
        advanced=True,
    )
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
        if self.detect and self.corruptions:
            raise UsageError(
                "``corruptions`` with ``detect=True``: it is crops that are corrupted",
                "cut the faces out first: fertool data crop",
            )
        if self.corruption_seed is not None and not self.corruptions:
            raise UsageError(
                f"``corruption_seed={self.corruption_seed}``: nothing is corrupted",
                "add ``corruptions=all``, or leave it out",
            )
        for name in self.corruptions:
            if name not in (ALL, *CORRUPTIONS):
                raise unknown_name("corruption", name, (ALL, *CORRUPTIONS))

    @property
    def chosen_corruptions(self) -> tuple[str, ...]:
        """The names of the corruptions to measure, in the order of `CORRUPTIONS`, each once."""
        if ALL in self.corruptions:
            return tuple(CORRUPTIONS)
        return tuple(name for name in CORRUPTIONS if name in self.corruptions)
