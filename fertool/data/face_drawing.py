"""Draw faces from parameters: soft-edged curves on a pixel grid, for a whole batch at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating[Any]]

Params = dict[str, FloatArray]
"""Each [N, 1, 1]. Lengths are in half-heights of the image, y points down from its middle."""

_EYE_X, _EYE_Y, _BROW_Y, _NOSE_Y, _MOUTH_Y = 0.31, -0.12, -0.36, 0.2, 0.5


def draw(p: Params, size: int) -> FloatArray:
    """Draw one face for each row of `p`: float32 [N, S, S], 0 black to 1 white, without lighting.

    `p` has pose (`angle` in radians, `zoom`, `shift_x`, `shift_y`, `yaw`), person (`skin`, `hair`,
    ...) and expression (`brow_raise`, `eye_open`, `mouth_curve`, ...): the keys of
    `fertool.data.synth`.
    """
    u, v = _face_grid(p, size)
    canvas = _Canvas(u, v, p)
    # In this order: later strokes cover earlier ones.
    canvas.head()
    canvas.nose()
    for side in (-1.0, 1.0):
        canvas.eye(side)
        canvas.brow(side)
        canvas.fold(side)
        canvas.frown(side)
    canvas.mouth()
    canvas.glasses()
    return canvas.image


def _face_grid(p: Params, size: int) -> tuple[FloatArray, FloatArray]:
    """Return the coordinates of each pixel in the upright face, [N, S, S] each."""
    ticks = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    x = ticks[None, None, :] - p["shift_x"]
    y = ticks[None, :, None] - p["shift_y"]
    # From the image back to the face: the inverse of the pose.
    cos = np.cos(p["angle"]) / p["zoom"]
    sin = np.sin(p["angle"]) / p["zoom"]
    return cos * x + sin * y, cos * y - sin * x


class _Canvas:
    """The image so far, and the strokes that add to it; `u` points to the right, `v` down."""

    def __init__(self, u: FloatArray, v: FloatArray, p: Params) -> None:
        self.u, self.v, self.p = u, v, p
        # A head that turns moves its features sideways more in the middle than at the edge.
        self.fu = u - 0.16 * p["yaw"] * np.maximum(1 - u * u, 0)
        self.image = p["background"] + p["background_slope"] * u

    def paint(
        self, tone: FloatArray | float, distance: FloatArray, strength: FloatArray | float = 1.0
    ) -> None:
        """Paint the points of negative distance with a tone and an edge of the softness' width."""
        cover = np.clip(0.5 - distance / self.p["softness"], 0, 1) * strength
        self.image = self.image + cover * (tone - self.image)

    def head(self) -> None:
        """Hair, neck, face and fringe."""
        p, u, v = self.p, self.u, self.v
        self.paint(p["hair"], _ellipse(u, v + 0.12, p["head_width"] + p["hair_volume"], 0.92))
        self.paint(0.75 * p["skin"], np.maximum(np.abs(u) - 0.36, 0.6 - v))
        narrowing = 1 - 0.14 * v
        face = _ellipse(u / narrowing, v - 0.04, p["head_width"], 0.92)
        radius = (u / p["head_width"]) ** 2 + ((v - 0.04) / 0.92) ** 2
        self.paint(p["skin"] * (1.04 - 0.22 * radius), face)
        fringe = v - (p["hairline"] + 0.35 * p["parting"] * u - 0.5 * u * u)
        scalp = _ellipse(u, v + 0.06, p["head_width"] + 0.04, 0.94)
        self.paint(p["hair"], np.maximum(fringe, scalp))

    def eye(self, side: float) -> None:
        """Socket, white, iris and lids."""
        p = self.p
        x = (self.fu - side * _EYE_X) * side
        t = x / (0.17 * p["eye_size"])
        lens = np.maximum(1 - t * t, 0)
        opening = 0.105 * p["eye_size"] * p["eye_open"]
        upper = _EYE_Y - opening * lens + p["eye_droop"] * t * 0.05
        lower = _EYE_Y + (0.75 - p["squint"]) * opening * lens
        socket = _ellipse(x, self.v - _EYE_Y, 0.24, 0.17)
        self.paint(0.72 * p["skin"], socket, 0.35)
        inside = np.maximum(np.maximum(upper - self.v, self.v - lower), (np.abs(t) - 1) * 0.17)
        self.paint(0.3 + 0.6 * np.maximum(p["skin"], 0.6), inside)
        iris = _ellipse(
            self.fu - side * _EYE_X - 0.05 * p["gaze"], self.v - _EYE_Y + 0.01, 0.08, 0.085
        )
        self.paint(p["iris"], np.maximum(iris, inside))
        upper_lid = np.maximum(np.abs(self.v - upper) - 0.022, (np.abs(t) - 1.08) * 0.17)
        self.paint(0.25 * p["skin"], upper_lid, 0.9)
        lower_lid = np.maximum(np.abs(self.v - lower) - 0.01, (np.abs(t) - 0.9) * 0.17)
        self.paint(0.55 * p["skin"], lower_lid, 0.6)

    def brow(self, side: float) -> None:
        """The eyebrow, of the hair's tone unless the skin is dark."""
        p = self.p
        x = (self.fu - side * (_EYE_X - 0.01)) * side
        t = x / 0.23
        line = _BROW_Y - p["brow_raise"] + p["brow_slant"] * t - p["brow_arch"] * (1 - t * t)
        thickness = p["brow_weight"] * (1 - 0.45 * np.clip(t, 0, 1))
        stroke = np.maximum(np.abs(self.v - line) - thickness, (np.abs(t) - 1) * 0.23)
        self.paint(np.minimum(p["hair"], 0.5 * p["skin"]), stroke, 0.9)

    def nose(self) -> None:
        """Bridge, wings and the creases of a wrinkled nose."""
        p, u, v = self.p, self.fu, self.v
        tip = _NOSE_Y - 0.05 * p["wrinkle"]
        bridge = np.maximum(
            np.abs(u - 0.03 - 0.05 * p["yaw"]) - 0.03, np.maximum(-0.12 - v, v - tip)
        )
        self.paint(1.12 * p["skin"], bridge, 0.5)
        wing = 0.1 * p["nose_width"] * (1 + 0.25 * p["wrinkle"])
        for side in (-1.0, 1.0):
            nostril = _ellipse(u - side * 0.6 * wing, v - tip - 0.02, 0.042, 0.024)
            self.paint(0.35 * p["skin"], nostril, 0.9)
            edge = _ring(u - side * wing, v - tip, 0.055, 0.06, 0.014)
            self.paint(0.7 * p["skin"], edge, 0.5)
        for height in (-0.02, 0.06):
            crease = np.abs(v - height + 0.5 * np.abs(u) - 0.04) - 0.014
            stroke = np.maximum(crease, np.abs(u) - 0.13)
            self.paint(0.45 * p["skin"], stroke, 0.85 * np.clip(p["wrinkle"], 0, 1))

    def fold(self, side: float) -> None:
        """The line from the wing of the nose to the corner of the mouth."""
        p = self.p
        t = np.clip((self.v - 0.18) / 0.3, -0.1, 1.1)
        line = 0.17 + (0.2 * p["mouth_width"] + 0.02) * t
        stroke = np.maximum(np.abs(self.fu * side - line) - 0.014, np.abs(t - 0.5) * 0.3 - 0.15)
        self.paint(0.5 * p["skin"], stroke, 0.75 * np.clip(p["folds"], 0, 1))

    def frown(self, side: float) -> None:
        """The line between the brows."""
        across = np.abs(self.fu - side * 0.05) - 0.013
        along = np.abs(self.v - _BROW_Y - 0.02) - 0.09
        stroke = np.maximum(across, along)
        self.paint(0.45 * self.p["skin"], stroke, 0.8 * np.clip(self.p["frown"], 0, 1))

    def mouth(self) -> None:
        """Lips, the open mouth with its teeth, and the line between closed lips."""
        p, v = self.p, self.v
        t = self.fu / (0.34 * p["mouth_width"])
        lens = np.maximum(1 - t * t, 0)
        middle = _MOUTH_Y - p["mouth_curve"] * (t * t - 0.4) + p["mouth_tilt"] * t * 0.04
        upper = middle - (0.4 * p["mouth_open"] * np.sqrt(lens) + p["lip_raise"] * lens)
        lower = middle + 0.6 * p["mouth_open"] * np.sqrt(lens)
        ends = (np.abs(t) - 1) * 0.34
        lip = p["lip"] * p["skin"]
        lips = np.maximum(upper - 0.055 * lens - v, v - lower - 0.075 * lens)
        self.paint(lip, np.maximum(lips, ends), 0.9)
        inside = np.maximum(np.maximum(upper - v, v - lower), ends)
        self.paint(0.1, inside)
        teeth = np.maximum(inside, v - upper - 0.45 * (lower - upper))
        self.paint(0.55 + 0.4 * p["skin"], teeth, np.clip(p["teeth"], 0, 1))
        line = np.abs(v - middle + p["lip_raise"] * lens) - 0.016
        self.paint(0.25 * p["skin"], np.maximum(line, ends), p["shut"])

    def glasses(self) -> None:
        """Round frames and the bar between them."""
        p = self.p
        frame = _ring(np.abs(self.fu) - _EYE_X, self.v - _EYE_Y, 0.25, 0.19, 0.022)
        bar = np.maximum(np.abs(self.v - _EYE_Y + 0.03) - 0.018, np.abs(self.fu) - 0.07)
        self.paint(0.1, np.minimum(frame, bar), p["glasses"])


def _ellipse(
    x: FloatArray, y: FloatArray, width: FloatArray | float, height: FloatArray | float
) -> FloatArray:
    """Return roughly the distance to an ellipse around the origin, negative inside."""
    radius = np.sqrt((x / width) ** 2 + (y / height) ** 2)
    # Exact on the outline, where a stroke is painted; far from it the value hardly matters.
    distance: FloatArray = (radius - 1) * np.minimum(width, np.float32(height))
    return distance


def _ring(
    x: FloatArray, y: FloatArray, width: float, height: float, thickness: float
) -> FloatArray:
    return np.abs(_ellipse(x, y, width, height)) - thickness
