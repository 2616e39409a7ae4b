"""What `predict` finds in pictures, and what `data crop` cuts out of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

from fertool.results.fields import LANDMARK_ORDER, Result, TimeStamp, described
from fertool.strict_json import Count, Finite, Fraction, Name, Positive, Text

_Point = tuple[Finite, Finite]


@dataclass(frozen=True)
class FaceResult:
    """One face of a picture: where it is, and the probabilities of its expressions."""

    face: Annotated[Count, described("number within the picture, from 0")]
    box: Annotated[
        tuple[Finite, Finite, Finite, Finite],
        described(
            "x, y, width and height, pixels of the upright picture; may leave it. "
            "Without ``detect`` the whole picture"
        ),
    ]
    label: Annotated[
        Name, described("the most probable class, or `unsure` below ``min_confidence``")
    ]
    confidence: Annotated[Fraction, described("the highest probability")]
    probabilities: Annotated[
        Mapping[Name, Fraction],
        described("by class; in videos averaged over ``smooth`` seconds"),
    ]
    score: Annotated[Fraction | None, described("the detector's")] = None
    landmarks: Annotated[tuple[_Point, ...] | None, described(LANDMARK_ORDER)] = None
    track: Annotated[Count | None, described("number through a video; null for pictures")] = None


@dataclass(frozen=True)
class PictureResult(Result):
    """One picture, or one frame of a video, and the faces in it, the surest first."""

    file: Annotated[Text, described("the picture or video")]
    frame: Annotated[Count, described("number of the frame in a video, from 0")] = 0
    time_s: Annotated[
        TimeStamp | None, described("the video's own time stamp; null for pictures")
    ] = None
    width: Annotated[Count, described("pixels of the upright picture")] = 0
    height: Annotated[Count, described("pixels of the upright picture")] = 0
    faces: Annotated[
        tuple[FaceResult, ...], described("the surest detection first; none without a face")
    ] = ()
    error: Annotated[Text | None, described("why the picture could not be read")] = None


@dataclass(frozen=True)
class PredictionSummary(Result):
    """What a run has seen; a frame of a video counts as a picture."""

    pictures: Annotated[Count, described("pictures and frames")] = 0
    faces: Annotated[Count, described("faces in them")] = 0
    without_face: Annotated[Count, described("pictures without a face")] = 0
    unreadable: Annotated[Count, described("pictures that could not be read")] = 0

    def plus(self, result: PictureResult) -> PredictionSummary:
        """Return the summary with one more result."""
        is_unreadable = result.error is not None
        is_empty = not is_unreadable and not result.faces
        return PredictionSummary(
            pictures=self.pictures + 1,
            faces=self.faces + len(result.faces),
            without_face=self.without_face + is_empty,
            unreadable=self.unreadable + is_unreadable,
        )


@dataclass(frozen=True)
class PredictionHeader(Result):
    """What holds for all pictures of a run."""

    model: Annotated[Text, described("the model file")]
    digest: Annotated[Text, described("digest of the model")]
    classes: Annotated[tuple[Name, ...], described("its classes, in order")]
    detector: Annotated[
        Name | None, described("what found the faces; null where pictures are crops already")
    ]
    template: Annotated[
        Name | None,
        described("where the places of landmarks in crops come from: `header` or `fer2013`"),
    ]
    temperature: Annotated[Finite, described("what the logits were divided by: the header's, or 1")]


@dataclass(frozen=True)
class PredictionReport(PredictionHeader):
    """The JSON of `predict`, which is written while it is made."""

    pictures: Annotated[
        tuple[PictureResult, ...], described("every picture and frame; one is a line of `.jsonl`")
    ]
    summary: Annotated[PredictionSummary, described("what was seen")]


@dataclass(frozen=True)
class CropReport(Result):
    """The JSON of `data crop`: what became of a folder of photographs."""

    output: Annotated[Text, described("the folder of the crops")]
    size: Annotated[Positive, described("side of the crops, pixels")]
    pictures: Annotated[Count, described("pictures that were looked at")]
    crops: Annotated[Count, described("crops that were written")]
    without_face: Annotated[tuple[Text, ...], described("pictures without a face")]
    unreadable: Annotated[
        tuple[Text, ...], described("pictures that could not be read, with the reason")
    ]
