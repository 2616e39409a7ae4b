"""Find the faces of a picture of any size, in its own pixels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fertool.config.detection import DetectionConfig
from fertool.faces.boxes import Box
from fertool.faces.constants import LARGEST_AREA, SECOND_LOOKS, SMALLEST_SIDE
from fertool.faces.detector import Detector

Size = tuple[int, int]
"""Width and height in pixels."""


@dataclass(frozen=True)
class DetectedFace:
    """A face in the pixels of its picture.

    `box` is x, y, width and height, and may leave the picture. `landmarks` [5, 2] are x and y of
    the eye at the left of the picture, the other eye, the tip of the nose and the corners of the
    mouth.
    """

    box: Box
    score: float
    landmarks: NDArray[np.float64]

    @property
    def area(self) -> float:
        """The area of the box in pixels."""
        return self.box[2] * self.box[3]


def find_faces(
    detector: Detector, image: Image.Image, config: DetectionConfig = DetectionConfig()
) -> list[DetectedFace]:
    """Return the faces of a picture (mode L or RGB), the surest first.

    It is looked at with a long side of ``detect_size`` pixels at most, and again at others if
    nothing is found.
    """
    for size in _looked_at(image.size, config.detect_size):
        found = detector.detect(_pixels_at(image, size), config.min_score)
        if len(found):
            return _in_picture(found, image.size, size)
    return []


def largest_face(faces: Sequence[DetectedFace]) -> list[DetectedFace]:
    """Return the face with the largest box, alone in a list, which is empty without faces."""
    return sorted(faces, key=lambda face: -face.area)[:1]


def _looked_at(size: Size, detect_size: int) -> Iterator[Size]:
    """Yield the sizes at which a picture of this size is looked at, without repeats."""
    first = _first_size(size, detect_size)
    seen = {first}
    yield first
    for side in SECOND_LOOKS:
        again = _scaled(size, side / max(size))
        if again not in seen:
            seen.add(again)
            yield again


def _first_size(size: Size, detect_size: int) -> Size:
    long_side, short_side = max(size), min(size)
    if long_side < SMALLEST_SIDE:
        return _scaled(size, SMALLEST_SIDE / long_side)
    scale = min(1.0, detect_size / long_side)
    # A panorama that is reduced to the long side alone has a height of a few pixels.
    scale = max(scale, min(1.0, SMALLEST_SIDE / short_side))
    largest_scale = (LARGEST_AREA / (size[0] * size[1])) ** 0.5
    return _scaled(size, min(scale, largest_scale))


def _scaled(size: Size, scale: float) -> Size:
    width, height = size
    return max(1, round(width * scale)), max(1, round(height * scale))


def _pixels_at(image: Image.Image, size: Size) -> NDArray[np.uint8]:
    """Return the RGB pixels [H, W, 3] of a picture at another size."""
    if image.size != size:
        # Averages when it reduces; the gap lets large pictures be reduced by a whole number first.
        image = image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)
    if image.mode != "RGB":
        image = image.convert("RGB")
    return np.asarray(image)


def _in_picture(found: NDArray[np.float64], picture: Size, looked_at: Size) -> list[DetectedFace]:
    """Return detections at the size that was looked at in the pixels of the picture."""
    scale = np.array([picture[0] / looked_at[0], picture[1] / looked_at[1]])
    faces: list[DetectedFace] = []
    for row in found:
        x, y = row[:2] * scale
        width, height = row[2:4] * scale
        landmarks = row[4:14].reshape(5, 2) * scale
        box = (float(x), float(y), float(width), float(height))
        faces.append(DetectedFace(box, float(row[14]), landmarks))
    return faces
