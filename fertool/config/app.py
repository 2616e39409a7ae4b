"""Options of the page that runs a model in a browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fertool.config.detection import DetectionConfig
from fertool.config.foreign_files import ForeignModel
from fertool.config.option import changed, check, option
from fertool.config.panels import OUTPUT
from fertool.config.predicting import SMOOTHING_S, PredictConfig

VIDEO_SIZE = 320
"""Long side, pixels, at which a camera's frames are looked at: a quarter of the work of 640."""


@dataclass(frozen=True)
class AppConfig:
    """What the page shows, and how; raises UsageError for a value out of bounds.

    `foreign` describes an ONNX file without fertool's header.
    """

    title: str = option("Expressions", "What the page and its icon are called.")
    folder: bool = option(
        False,
        "Write a folder for a static host in place of one file: it can be installed on a phone and "
        "is kept there for use without a network.",
    )
    runtime: Path | None = option(
        None,
        "The npm package onnxruntime-web, as the archive that `npm pack` writes or as a folder.",
    )
    min_confidence: float = option(
        0.0, "Probability below which a face is 'unsure'.", minimum=0, maximum=1
    )
    smooth: float = changed(
        PredictConfig,
        "smooth",
        SMOOTHING_S,
        help="Seconds over which the probabilities of a face before the camera are averaged; 0 is "
        "each frame alone.",
        panel="",
    )
    detection: DetectionConfig = field(default_factory=DetectionConfig)
    foreign: ForeignModel = field(default_factory=ForeignModel)

    def __post_init__(self) -> None:
        check(self)


@dataclass(frozen=True)
class ServerConfig:
    """Where the page is served; raises UsageError for a value out of bounds."""

    serve: int | None = option(
        None,
        "Then serve the page on this port of 127.0.0.1 until Ctrl-C; 0: any free port.",
        minimum=0,
        maximum=65_535,
        metavar="PORT",
        panel=OUTPUT,
    )

    def __post_init__(self) -> None:
        check(self)
