"""Draw faces from numbers: soft-edged curves on a grid, for a whole batch at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Grid = NDArray[np.floating[Any]]

Params = dict[str, Grid]
"""Each [N, 1, 1]. Lengths are in half-heights of the image; heights count downwards from its middle."""

_EYE_X, _EYE_Y, _BROW_Y, _NOSE_Y, _MOUTH_Y = 0.31, -0.12, -0.36, 0.2, 0.5


def draw(p: Params, size: int) -> Grid:
    """Draw one face per row of `p`: float32 [N, S, S], 0 black to 1 white, before lighting and noise.

    `p` names pose (`angle` in radians, `zoom`, `shift_x`, `shift_y`, `yaw`), person (`skin`, `hair`, ...) and
    expression (`brow_raise`, `eye_open`, `mouth_curve`, ...): the keys that `fertool.data.synth` fills.
    """
    u, v = _face_grid(p, size)
    pen = _Pen(u, v, p)
    pen.head()
    pen.nose()
    for side in (-1.0, 1.0):
        pen.eye(side)
        pen.brow(side)
        pen.fold(side)
        pen.frown(side)
    pen.mouth()
    pen.glasses()
    return pen.image


def _face_grid(p: Params, size: int) -> tuple[Grid, Grid]:
    """Return where each pixel lies in the face, [N, S, S] each: rotated, zoomed and shifted back to upright."""
    ticks = ((np.arange(size) + 0.5) * (2 / size) - 1).astype(np.float32)
    x, y = ticks[None, None, :] - p["shift_x"], ticks[None, :, None] - p["shift_y"]
    cos, sin = np.cos(p["angle"]) / p["zoom"], np.sin(p["angle"]) / p["zoom"]
    return cos * x + sin * y, cos * y - sin * x


class _Pen:
    """The picture so far and the strokes that add to it; `u` to the right and `v` down, in the face."""

    def __init__(self, u: Grid, v: Grid, p: Params) -> None:
        self.u, self.v, self.p = u, v, p
        # A head that turns moves its features sideways more in the middle than at the edge.
        self.fu = u - 0.16 * p["yaw"] * np.maximum(1 - u * u, 0)
        self.image = p["background"] + p["background_slope"] * u

    def paint(self, tone: Grid | float, distance: Grid, strength: Grid | float = 1.0) -> None:
        """Cover the points of negative distance with a tone, blurred over the pen's softness."""
        cover = np.clip(0.5 - distance / self.p["softness"], 0, 1) * strength
        self.image = self.image + cover * (tone - self.image)

    def head(self) -> None:
        p, u, v = self.p, self.u, self.v
        self.paint(p["hair"], _ellipse(u, v + 0.12, p["head_width"] + p["hair_volume"], 0.92))
        self.paint(0.75 * p["skin"], np.maximum(np.abs(u) - 0.36, 0.6 - v))
        narrowing = 1 - 0.14 * v
        face = _ellipse(u / narrowing, v - 0.04, p["head_width"], 0.92)
        radius = (u / p["head_width"]) ** 2 + ((v - 0.04) / 0.92) ** 2
        self.paint(p["skin"] * (1.04 - 0.22 * radius), face)
        fringe = v - (p["hairline"] + 0.35 * p["parting"] * u - 0.5 * u * u)
        self.paint(
            p["hair"], np.maximum(fringe, _ellipse(u, v + 0.06, p["head_width"] + 0.04, 0.94))
        )

    def eye(self, side: float) -> None:
        p = self.p
        x = (self.fu - side * _EYE_X) * side
        t = x / (0.17 * p["eye_size"])
        lens = np.maximum(1 - t * t, 0)
        opening = 0.105 * p["eye_size"] * p["eye_open"]
        upper = _EYE_Y - opening * lens + p["eye_droop"] * t * 0.05
        lower = _EYE_Y + (0.75 - p["squint"]) * opening * lens
        self.paint(0.72 * p["skin"], _ellipse(x, self.v - _EYE_Y, 0.24, 0.17), 0.35)
        inside = np.maximum(np.maximum(upper - self.v, self.v - lower), (np.abs(t) - 1) * 0.17)
        self.paint(0.3 + 0.6 * np.maximum(p["skin"], 0.6), inside)
        iris = _ellipse(
            self.fu - side * _EYE_X - 0.05 * p["gaze"], self.v - _EYE_Y + 0.01, 0.08, 0.085
        )
        self.paint(p["iris"], np.maximum(iris, inside))
        self.paint(
            0.25 * p["skin"],
            np.maximum(np.abs(self.v - upper) - 0.022, (np.abs(t) - 1.08) * 0.17),
            0.9,
        )
        self.paint(
            0.55 * p["skin"],
            np.maximum(np.abs(self.v - lower) - 0.01, (np.abs(t) - 0.9) * 0.17),
            0.6,
        )

    def brow(self, side: float) -> None:
        p = self.p
        x = (self.fu - side * (_EYE_X - 0.01)) * side
        t = x / 0.23
        line = _BROW_Y - p["brow_raise"] + p["brow_slant"] * t - p["brow_arch"] * (1 - t * t)
        thickness = p["brow_weight"] * (1 - 0.45 * np.clip(t, 0, 1))
        stroke = np.maximum(np.abs(self.v - line) - thickness, (np.abs(t) - 1) * 0.23)
        self.paint(np.minimum(p["hair"], 0.5 * p["skin"]), stroke, 0.9)

    def nose(self) -> None:
        p, u, v = self.p, self.fu, self.v
        tip = _NOSE_Y - 0.05 * p["wrinkle"]
        bridge = np.maximum(
            np.abs(u - 0.03 - 0.05 * p["yaw"]) - 0.03, np.maximum(-0.12 - v, v - tip)
        )
        self.paint(1.12 * p["skin"], bridge, 0.5)
        wing = 0.1 * p["nose_width"] * (1 + 0.25 * p["wrinkle"])
        for side in (-1.0, 1.0):
            self.paint(
                0.35 * p["skin"], _ellipse(u - side * 0.6 * wing, v - tip - 0.02, 0.042, 0.024), 0.9
            )
            self.paint(0.7 * p["skin"], _ring(u - side * wing, v - tip, 0.055, 0.06, 0.014), 0.5)
        for height in (-0.02, 0.06):
            crease = np.abs(v - height + 0.5 * np.abs(u) - 0.04) - 0.014
            self.paint(
                0.45 * p["skin"],
                np.maximum(crease, np.abs(u) - 0.13),
                0.85 * np.clip(p["wrinkle"], 0, 1),
            )

    def fold(self, side: float) -> None:
        """The line from the wing of the nose to the corner of the mouth."""
        p = self.p
        t = np.clip((self.v - 0.18) / 0.3, -0.1, 1.1)
        line = 0.17 + (0.2 * p["mouth_width"] + 0.02) * t
        stroke = np.maximum(np.abs(self.fu * side - line) - 0.014, np.abs(t - 0.5) * 0.3 - 0.15)
        self.paint(0.5 * p["skin"], stroke, 0.75 * np.clip(p["folds"], 0, 1))

    def frown(self, side: float) -> None:
        stroke = np.maximum(
            np.abs(self.fu - side * 0.05) - 0.013, np.abs(self.v - _BROW_Y - 0.02) - 0.09
        )
        self.paint(0.45 * self.p["skin"], stroke, 0.8 * np.clip(self.p["frown"], 0, 1))

    def mouth(self) -> None:
        p, v = self.p, self.v
        t = self.fu / (0.34 * p["mouth_width"])
        lens = np.maximum(1 - t * t, 0)
        middle = _MOUTH_Y - p["mouth_curve"] * (t * t - 0.4) + p["mouth_tilt"] * t * 0.04
        upper = middle - (0.4 * p["mouth_open"] * np.sqrt(lens) + p["lip_raise"] * lens)
        lower = middle + 0.6 * p["mouth_open"] * np.sqrt(lens)
        ends = (np.abs(t) - 1) * 0.34
        lip = p["lip"] * p["skin"]
        self.paint(
            lip,
            np.maximum(np.maximum(upper - 0.055 * lens - v, v - lower - 0.075 * lens), ends),
            0.9,
        )
        inside = np.maximum(np.maximum(upper - v, v - lower), ends)
        self.paint(0.1, inside)
        teeth = np.maximum(inside, v - upper - 0.45 * (lower - upper))
        self.paint(0.55 + 0.4 * p["skin"], teeth, np.clip(p["teeth"], 0, 1))
        self.paint(
            0.25 * p["skin"],
            np.maximum(np.abs(v - middle + p["lip_raise"] * lens) - 0.016, ends),
            p["shut"],
        )

    def glasses(self) -> None:
        p = self.p
        frame = _ring(np.abs(self.fu) - _EYE_X, self.v - _EYE_Y, 0.25, 0.19, 0.022)
        bar = np.maximum(np.abs(self.v - _EYE_Y + 0.03) - 0.018, np.abs(self.fu) - 0.07)
        self.paint(0.1, np.minimum(frame, bar), p["glasses"])


def _ellipse(x: Grid, y: Grid, width: Grid | float, height: Grid | float) -> Grid:
    """Roughly the distance to an ellipse around the origin, negative inside."""
    distance: Grid = (np.sqrt((x / width) ** 2 + (y / height) ** 2) - 1) * np.minimum(
        width, np.float32(height)
    )
    return distance


def _ring(x: Grid, y: Grid, width: float, height: float, thickness: float) -> Grid:
    return np.abs(_ellipse(x, y, width, height)) - thickness
