"""Measure where the landmarks of faces lie in a data set of crops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fertool.config.detection import DetectionConfig
from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter
from fertool.results import Landmarks

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

_MOST_IMAGES = 3000
"""Of which the landmarks are measured: the error of their mean is then below 0.2 % of the side."""
_FEWEST_FACES = 20
_MIRRORED = (1, 0, 2, 4, 3)
"""The landmark that each one is in a mirror."""


def measure_landmarks(
    images: Tensor, config: DetectionConfig = DetectionConfig(), *, reporter: Reporter = SILENT
) -> Landmarks:
    """Return where the landmarks lie in images uint8 [N, C, S, S], of at most 3,000 of them.

    Raises FertoolError where hardly any face is found: images of other things have no template.
    """
    import numpy as np

    from fertool.faces.detector import load_detector

    detector = load_detector(config.detector)
    step = max(1, len(images) // _MOST_IMAGES)
    chosen = range(0, len(images), step)[:_MOST_IMAGES]
    found: list[NDArray[np.float64]] = []
    with reporter.progress("landmarks") as on_progress:
        for done, index in enumerate(chosen, start=1):
            found += _landmarks_of(images[index].numpy(), detector, config)
            on_progress(done, len(chosen))
    if len(found) < _FEWEST_FACES:
        raise FertoolError(
            f"landmarks: {len(found)} faces in {len(chosen)} images, too few to measure",
            "are they crops of faces? ``min_score=0.5`` finds more of them",
        )
    points = np.stack(found)
    mean = points.mean(axis=0)
    mirrored = mean[list(_MIRRORED)] * (-1, 1) + (1, 0)
    return Landmarks(
        images=len(chosen),
        with_face=len(found),
        template=_rounded((mean + mirrored) / 2),
        spread=_rounded(points.std(axis=0)),
    )


def _landmarks_of(
    pixels: NDArray[np.uint8], detector: Any, config: DetectionConfig
) -> list[NDArray[np.float64]]:
    """Return the landmarks [5, 2] of the largest face of an image [C, S, S], if there is one."""
    import numpy as np
    from PIL import Image

    from fertool.faces.finding import find_faces, largest_face

    picture = pixels[0] if len(pixels) == 1 else np.ascontiguousarray(pixels.transpose(1, 2, 0))
    faces = largest_face(find_faces(detector, Image.fromarray(picture), config))
    return [face.landmarks / pixels.shape[-1] for face in faces]


def _rounded(points: NDArray[np.float64]) -> tuple[tuple[float, float], ...]:
    rounded: list[tuple[float, float]] = []
    for x, y in points.tolist():
        rounded.append((round(x, 4), round(y, 4)))
    return tuple(rounded)
