"""The interface of a face detector."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import NDArray

from fertool.registry import DETECTORS

COLUMNS = 15
"""Of a detection: x, y, width, height, then x and y of five landmarks, then the score."""


class Detector(ABC):
    """Finds faces and their landmarks in one picture at the size that it has.

    `threads` compute one pass; 1 is the fastest for pictures of a few hundred pixels.
    """

    @abstractmethod
    def __init__(self, threads: int) -> None:
        """Open the network; what is heavy is imported here."""

    @abstractmethod
    def detect(self, pixels: NDArray[np.uint8], min_score: float) -> NDArray[np.float64]:
        """Return the faces in RGB pixels [H, W, 3], the best first: float64 [N, 15].

        A row has x, y, width and height of the box in pixels, which may leave the picture, x and y
        of the landmarks in the order of `constants.FER2013_TEMPLATE`, and the score, `min_score` or
        more, at most 1.
        """


def load_detector(name: str, threads: int = 1) -> Detector:
    """Return the detector of this name; raises UsageError with the choices for another name."""
    member: type[Detector] = DETECTORS.load(name)
    return member(threads)
