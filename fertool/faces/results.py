"""What is found in pictures, as types with one JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

Point = tuple[float, float]


@dataclass(frozen=True)
class FaceResult:
    """One face of a picture: where it is, and the probabilities of its expressions.

    `face` counts from 0 within the picture, `track` through a video. `box` is x, y, width and
    height, `landmarks` are five points, both in pixels of the upright picture. `score` is the
    detector's. A picture that was not searched is one face with a box of its size. `label` is the
    class of the highest probability, or "unsure"; `confidence` is that probability.
    """

    face: int
    box: tuple[float, float, float, float]
    label: str
    confidence: float
    probabilities: Mapping[str, float]
    score: float | None = None
    landmarks: tuple[Point, ...] | None = None
    track: int | None = None


@dataclass(frozen=True)
class PictureResult:
    """One picture, or one frame of a video, and the faces in it, the surest first.

    `frame` counts from 0, `time_s` is the time stamp in the video; width and height are in pixels.
    `error` tells why there is nothing: the picture could not be read.
    """

    file: str
    frame: int = 0
    time_s: float | None = None
    width: int = 0
    height: int = 0
    faces: tuple[FaceResult, ...] = ()
    error: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class PredictionHeader:
    """What holds for all pictures of a run.

    `template` tells where the places of the landmarks in a crop come from: the model's header, or
    FER2013. `detector` and `template` are None where pictures are crops already. `temperature` is
    what the logits were divided by, 1 unless the model's header has another.
    """

    model: str
    digest: str
    classes: tuple[str, ...]
    detector: str | None
    template: str | None
    temperature: float

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)


@dataclass
class PredictionSummary:
    """What a run has seen so far; a frame of a video counts as a picture."""

    pictures: int = 0
    faces: int = 0
    without_face: int = 0
    unreadable: int = 0

    def count_(self, result: PictureResult) -> None:
        """Add one result."""
        self.pictures += 1
        self.faces += len(result.faces)
        if result.error is not None:
            self.unreadable += 1
        elif not result.faces:
            self.without_face += 1

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return asdict(self)
