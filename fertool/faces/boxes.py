"""Boxes of faces: x, y, width and height in pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Box = tuple[float, float, float, float]


def overlaps(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the intersection over union [N] of a box (x, y, width, height, …) with others."""
    left = np.maximum(box[0], others[:, 0])
    top = np.maximum(box[1], others[:, 1])
    right = np.minimum(box[0] + box[2], others[:, 0] + others[:, 2])
    bottom = np.minimum(box[1] + box[3], others[:, 1] + others[:, 3])
    # Boxes that lie apart have negative sides, whose product could be positive.
    shared = np.clip(right - left, 0, None) * np.clip(bottom - top, 0, None)
    areas = box[2] * box[3] + others[:, 2] * others[:, 3]
    overlap: NDArray[np.float64] = shared / (areas - shared)
    return overlap
