"""From a frame to the labels of its faces: find, align, classify, average over time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fertool.config.predicting import UNSURE, PredictConfig
from fertool.faces.alignment import Template, crop_face
from fertool.faces.boxes import Box
from fertool.faces.detector import Detector
from fertool.faces.finding import DetectedFace, find_faces, largest_face
from fertool.faces.frames import Frame
from fertool.faces.tracks import Tracker
from fertool.results import FaceResult, PictureResult

Classify = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""From the pixels uint8 [C, S, S] of one crop to the probabilities [K]."""
_MODES = {1: "L", 3: "RGB"}
_USUAL_FRAME_S = 0.04
"""The time of a frame in a video without time stamps."""


@dataclass(frozen=True)
class CropShape:
    """The crops that a model file takes: their channels, and the side of the network's input.

    Pictures that are crops keep their size where the file takes `any_size`.
    """

    channels: int
    size: int
    any_size: bool = False


@dataclass(frozen=True)
class LabeledFrame:
    """A frame, what is found in it, and the crop that was classified of each face."""

    frame: Frame
    result: PictureResult
    crops: tuple[Image.Image, ...] = ()


class FaceLabeler:
    """Labels the faces of frames; one for all sources.

    Without a `detector` pictures are crops already. Each face is classified alone, so that its
    probabilities do not depend on what else is in the picture or in the folder.
    """

    def __init__(
        self,
        classify: Classify,
        classes: Sequence[str],
        shape: CropShape,
        template: Template,
        detector: Detector | None,
        config: PredictConfig,
    ) -> None:
        self._classify = classify
        self._classes = tuple(classes)
        self._shape = shape
        self._template = template
        self._detector = detector
        self._config = config

    def new_tracker(self) -> Tracker:
        """Return what follows the faces of one video."""
        return Tracker(self._config.smooth)

    def label(self, frame: Frame, tracker: Tracker | None = None) -> LabeledFrame:
        """Return a frame with its faces; those of a video are followed by its `tracker`."""
        image = frame.image
        if image is None:
            failed = PictureResult(frame.source.name, frame.number, frame.time_s, error=frame.error)
            return LabeledFrame(frame, failed)

        found = self._faces_in(image)
        boxes: list[Box] = []
        for face in found:
            boxes.append(face.box if face else _whole(image))
        # Videos without time stamps are rare; smoothing still wants to know about time.
        time_s = frame.number * _USUAL_FRAME_S
        if frame.time_s is not None:
            time_s = frame.time_s
        tracks: Sequence[int | None] = [None] * len(boxes)
        if tracker is not None:
            tracks = tracker.follow(boxes, time_s)

        crops: list[Image.Image] = []
        faces: list[FaceResult] = []
        for index, (face, track) in enumerate(zip(found, tracks, strict=True)):
            crop = crop_for(self._shape, image, face, self._template)
            probabilities = self._classify(channels_first(crop))
            if tracker is not None and track is not None:
                probabilities = tracker.smooth(track, probabilities, time_s)
            crops.append(crop)
            faces.append(self._result(index, boxes[index], face, track, probabilities))
        result = _picture_result(frame, image.size, faces)
        return LabeledFrame(frame, result, tuple(crops))

    def _faces_in(self, image: Image.Image) -> Sequence[DetectedFace | None]:
        """Return the faces to label; None stands for a picture that is a crop already."""
        if self._detector is None:
            return [None]
        found = find_faces(self._detector, image, self._config.detection)
        if self._config.faces == "largest":
            return largest_face(found)
        return found

    def _result(
        self,
        index: int,
        box: Box,
        face: DetectedFace | None,
        track: int | None,
        probabilities: NDArray[np.float64],
    ) -> FaceResult:
        best = int(probabilities.argmax())
        confidence = float(probabilities[best])
        label = self._classes[best]
        if confidence < self._config.min_confidence:
            label = UNSURE
        by_class: dict[str, float] = {}
        for name, value in zip(self._classes, probabilities.tolist(), strict=True):
            by_class[name] = round(value, 6)
        x, y, width, height = (round(value, 2) for value in box)
        score, landmarks = None, None
        if face is not None:
            score = round(face.score, 4)
            # Hundredths of a pixel, far below the detector's own error.
            landmarks = tuple((round(x, 2), round(y, 2)) for x, y in face.landmarks.tolist())
        return FaceResult(
            face=index,
            box=(x, y, width, height),
            label=label,
            confidence=round(confidence, 6),
            probabilities=by_class,
            score=score,
            landmarks=landmarks,
            track=track,
        )


def _picture_result(
    frame: Frame, size: tuple[int, int], faces: Sequence[FaceResult]
) -> PictureResult:
    width, height = size
    # A millionth of a second: what is behind it is noise of the division.
    time_s = None if frame.time_s is None else round(frame.time_s, 6)
    return PictureResult(frame.source.name, frame.number, time_s, width, height, tuple(faces))


def _whole(image: Image.Image) -> Box:
    return (0.0, 0.0, float(image.width), float(image.height))


def crop_for(
    shape: CropShape, image: Image.Image, face: DetectedFace | None, template: Template
) -> Image.Image:
    """Return what a model is given of a picture: an aligned face, or without one the whole."""
    mode = _MODES[shape.channels]
    if face is None:
        # In this order, as the data sets of crops are read.
        converted = image
        if image.mode != mode:
            converted = image.convert(mode)
        side = (shape.size, shape.size)
        if shape.any_size or image.size == side:
            return converted
        return converted.resize(side, Image.Resampling.BILINEAR)
    crop = crop_face(image, face.landmarks, shape.size, template)
    # Gray after the crop, as where crops are written in color and read in gray.
    if crop.mode != mode:
        crop = crop.convert(mode)
    return crop


def channels_first(crop: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels [C, S, S] of a crop."""
    pixels: NDArray[np.uint8] = np.asarray(crop)
    if pixels.ndim == 2:
        return pixels[None]
    return pixels.transpose(2, 0, 1)
