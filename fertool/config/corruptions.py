"""The corruptions of `eval`: their names and the strengths of their five levels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

REFERENCE_SIDE = 48
"""Lengths in pixels are those of an image of this side; they grow with the image."""
ALL = "all"


@dataclass(frozen=True)
class CorruptionLevels:
    """What the strength of a corruption is, and its five levels, the mildest first."""

    strength: str
    levels: tuple[float, float, float, float, float]


CORRUPTIONS: Mapping[str, CorruptionLevels] = {
    "noise": CorruptionLevels("sigma, gray levels", (5, 10, 15, 25, 40)),
    "blur": CorruptionLevels("sigma, px of 48", (0.5, 1, 1.5, 2, 3)),
    "resolution": CorruptionLevels("fraction of the side", (0.75, 0.625, 0.5, 0.375, 0.25)),
    "brightness": CorruptionLevels("gamma", (1.25, 1.5, 2, 2.5, 3)),
    "contrast": CorruptionLevels("factor", (0.75, 0.5, 0.4, 0.3, 0.2)),
    "occlusion": CorruptionLevels("side, px of 48", (6, 9, 12, 16, 20)),
    "shift": CorruptionLevels("px of 48", (2, 4, 6, 8, 10)),
    "jpeg": CorruptionLevels("quality", (50, 30, 20, 10, 5)),
}

REFERENCE = (
    ("noise", 10),
    ("noise", 25),
    ("blur", 1),
    ("blur", 2),
    ("resolution", 0.5),
    ("occlusion", 12),
    ("brightness", 2),
    ("contrast", 0.5),
)
"""Corruptions with a strength of which one mean is taken: what a cheap camera does to a face."""
