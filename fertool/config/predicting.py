"""Options of predicting the expressions in pictures and videos, and of cutting faces out."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from fertool.config.detection import DETECTION, DetectionConfig
from fertool.config.foreign_files import ForeignModel
from fertool.config.image_options import LARGEST_SIDE
from fertool.config.option import check, option
from fertool.config.panels import OUTPUT

UNSURE = "unsure"
"""The label of a face whose probability is below the least one."""
VIDEO = "Video"
SMOOTHING_S = 0.25
"""Time over which a video's probabilities are averaged, where none is given."""


@dataclass(frozen=True)
class PredictConfig:
    """Which faces are labeled, and how; raises UsageError for a value out of bounds.

    `foreign` describes ONNX files without fertool's header.
    """

    detect: bool = option(
        True, "Find faces and align them; off for pictures that are crops already.", panel=DETECTION
    )
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    faces: Literal["all", "largest"] = option(
        "all", "Label every face of a picture, or the largest.", panel=DETECTION
    )
    min_confidence: float = option(
        0.0, f"Probability below which the label is '{UNSURE}'.", minimum=0, maximum=1
    )
    every: int = option(1, "Look at every N-th frame only.", panel=VIDEO, minimum=1)
    smooth: float = option(
        SMOOTHING_S,
        "Seconds over which the probabilities of one face are averaged; 0 is each frame alone.",
        panel=VIDEO,
        minimum=0,
        maximum=60,
    )
    threads: int = option(1, "Threads for one pass of a network.", minimum=1, maximum=256)
    foreign: ForeignModel = field(default_factory=ForeignModel)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class PredictionPictures:
    """Where pictures of the work go: with boxes drawn in, and the crops that were classified."""

    draw: Path | None = option(
        None,
        "A folder for pictures and videos with boxes, or for one source a .jpg, .png or .mp4.",
        panel=OUTPUT,
    )
    crops: Path | None = option(
        None, "A folder for the crops that the model is given.", panel=OUTPUT
    )


@dataclass(frozen=True)
class CropConfig:
    """How faces are cut out of photographs; raises UsageError for a value out of bounds."""

    size: int = option(48, "Side of the crops, pixels.", minimum=8, maximum=LARGEST_SIDE)
    faces: Literal["all", "largest"] = option(
        "largest", "Cut every face of a picture, or the largest.", panel=DETECTION
    )
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    threads: int = option(1, "Threads for one pass of the detector.", minimum=1, maximum=256)

    def __post_init__(self) -> None:
        check(self)
