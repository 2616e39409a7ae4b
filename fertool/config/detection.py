"""Options of finding faces."""

from __future__ import annotations

from dataclasses import dataclass

from fertool.config.option import check, option
from fertool.registry import DETECTORS

DETECTION = "Detection"


@dataclass(frozen=True)
class DetectionConfig:
    """How faces are found; raises UsageError for a value out of bounds."""

    detector: str = option(
        "yunet", "Finds faces and landmarks.", panel=DETECTION, registry=DETECTORS, advanced=True
    )
    # YuNet finds 72 of 73 faces of photographs at 0.7 and nothing else; at 0.9, which OpenCV
    # presets, 61.
    min_score: float = option(
        0.7, "The score from which a detection counts.", panel=DETECTION, minimum=0.01, maximum=1
    )
    detect_size: int = option(
        640,
        "Long side, pixels, at which a picture is looked at first: 320 is faster, 1280 finds "
        "smaller faces.",
        panel=DETECTION,
        minimum=32,
        maximum=4096,
    )

    def __post_init__(self) -> None:
        check(self)
