"""Synthetic faces: seven expressions, different people, poses and light, drawn by the program."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fertool.data.face_drawing import FloatArray, Params, draw
from fertool.data.fer2013_csv import write_csv
from fertool.data.labels import BASIC
from fertool.data.reader import Indices, Pixels

_CHUNK = 16
"""Faces drawn at once: few enough for the temporary arrays to stay in the processor's cache."""

# How an expression changes a face, relative to neutral; lengths are in half-heights of the image.
_NEUTRAL = {
    "brow_raise": 0.0,
    "brow_slant": 0.0,
    "brow_arch": 0.03,
    "eye_open": 1.0,
    "eye_droop": 0.0,
    "squint": 0.1,
    "mouth_curve": 0.0,
    "mouth_open": 0.0,
    "mouth_width": 0.85,
    "lip_raise": 0.0,
    "teeth": 0.0,
    "wrinkle": 0.0,
    "folds": 0.1,
    "frown": 0.0,
}
_EXPRESSIONS: dict[str, dict[str, float]] = {
    "angry": {
        "brow_raise": -0.08,
        "brow_slant": -0.1,
        "eye_open": 0.8,
        "mouth_curve": -0.04,
        "frown": 0.9,
    },
    "disgust": {
        "brow_raise": -0.06,
        "eye_open": 0.6,
        "squint": 0.35,
        "lip_raise": 0.09,
        "wrinkle": 1.0,
        "folds": 0.9,
        "mouth_curve": -0.05,
        "brow_slant": -0.03,
    },
    "fear": {
        "brow_raise": 0.08,
        "brow_slant": 0.1,
        "eye_open": 1.45,
        "mouth_open": 0.14,
        "mouth_width": 1.0,
        "mouth_curve": -0.05,
        "teeth": 0.5,
        "squint": 0.0,
    },
    "happy": {
        "mouth_curve": 0.14,
        "mouth_open": 0.1,
        "mouth_width": 1.15,
        "teeth": 0.9,
        "folds": 0.7,
        "squint": 0.4,
        "eye_open": 0.85,
    },
    "sad": {
        "brow_slant": 0.12,
        "brow_raise": 0.02,
        "eye_open": 0.75,
        "eye_droop": 0.9,
        "mouth_curve": -0.1,
    },
    "surprise": {
        "brow_raise": 0.13,
        "brow_arch": 0.09,
        "eye_open": 1.5,
        "mouth_open": 0.3,
        "mouth_width": 0.55,
        "squint": 0.0,
    },
    "neutral": {},
}
_EXPRESSION_SPREAD = {
    "brow_raise": 0.018,
    "brow_slant": 0.02,
    "mouth_curve": 0.016,
    "mouth_open": 0.012,
    "eye_open": 0.08,
    "mouth_width": 0.06,
    "eye_droop": 0.15,
    "lip_raise": 0.01,
    "folds": 0.12,
    "frown": 0.1,
    "wrinkle": 0.05,
}

# The range of each parameter that does not depend on the expression. The order of the keys is the
# order of the random draws: changing it changes every face.
_PERSON_AND_POSE = {
    "angle": (-0.22, 0.22),
    "zoom": (0.95, 1.25),
    "shift_x": (-0.09, 0.09),
    "shift_y": (-0.09, 0.09),
    "yaw": (-1.0, 1.0),
    "softness": (0.05, 0.09),
    "background": (0.05, 0.95),
    "background_slope": (-0.15, 0.15),
    "skin": (0.35, 0.88),
    "hair": (0.04, 0.6),
    "hair_volume": (0.03, 0.2),
    "hairline": (-0.7, -0.48),
    "parting": (-1.0, 1.0),
    "head_width": (0.64, 0.76),
    "eye_size": (0.85, 1.12),
    "iris": (0.08, 0.35),
    "gaze": (-1.0, 1.0),
    "brow_weight": (0.022, 0.045),
    "nose_width": (0.8, 1.25),
    "lip": (0.55, 0.82),
    "mouth_tilt": (-0.5, 0.5),
}
_GLASSES_FRACTION = 0.12
_OPEN_SMILE_FRACTION = 0.7


def split_names(count: int) -> list[str]:
    """Return the split of each of `count` faces; classes alternate, so each split is balanced."""
    part = round(0.1 * count)
    return ["train"] * (count - 2 * part) + ["val"] * part + ["test"] * part


def draw_faces(count: int, seed: int, size: int = 48) -> tuple[Pixels, Indices]:
    """Draw faces uint8 [N, 1, S, S] and labels int64 [N] in fer2013's order; classes alternate."""
    return np.concatenate(list(draw_in_chunks(count, seed, size))), class_indices(count)


def write_faces(path: Path, count: int, seed: int) -> None:
    """Draw faces and write them in the form of fer2013.csv, atomically."""
    images, labels = draw_faces(count, seed)
    write_csv(path, images, labels, split_names(count))


def class_indices(count: int) -> Indices:
    """Return the labels int64 [N] of drawn faces: classes alternate."""
    return np.arange(count) % len(BASIC)


def draw_in_chunks(count: int, seed: int, size: int) -> Iterator[Pixels]:
    """Yield the faces, uint8 [<= _CHUNK, 1, S, S] each."""
    rng = np.random.default_rng(seed)
    params = _sample_params(class_indices(count), rng)
    for start in range(0, count, _CHUNK):
        chunk = {name: value[start : start + _CHUNK] for name, value in params.items()}
        yield _photograph(draw(chunk, size), rng)[:, None]


def _sample_params(labels: Indices, rng: np.random.Generator) -> Params:
    """Draw the parameters of each face, each [N, 1, 1]."""
    n = len(labels)
    intensity = _uniform(rng, n, 0.6, 1.15)
    p: Params = {}
    for name, neutral in _NEUTRAL.items():
        by_class = [_EXPRESSIONS[expression].get(name, neutral) for expression in BASIC]
        full = np.array(by_class, np.float32)[labels].reshape(-1, 1, 1)
        noise = np.clip(rng.standard_normal((n, 1, 1), np.float32), -2, 2)
        spread = _EXPRESSION_SPREAD.get(name, 0.0)
        p[name] = neutral + intensity * (full - neutral) + spread * noise
    for name, (low, high) in _PERSON_AND_POSE.items():
        p[name] = _uniform(rng, n, low, high)
    p["glasses"] = (_uniform(rng, n, 0, 1) < _GLASSES_FRACTION).astype(np.float32)

    # A smile without teeth is a closed one, and any mouth that is not open shows the line between
    # the lips.
    is_happy = (labels == BASIC.index("happy")).reshape(-1, 1, 1)
    closed = is_happy & (_uniform(rng, n, 0, 1) > _OPEN_SMILE_FRACTION)
    p["mouth_open"] = np.where(closed, np.float32(0), np.maximum(p["mouth_open"], 0))
    p["shut"] = np.clip(1 - p["mouth_open"] / 0.05, 0, 1)
    return p


def _photograph(drawn: FloatArray, rng: np.random.Generator) -> Pixels:
    """Light the drawing from a side and add a poor camera's contrast and grain: uint8 [N, S, S]."""
    n, size, _ = drawn.shape
    ticks = np.linspace(-1, 1, size, dtype=np.float32)
    angle = _uniform(rng, n, 0, 2 * np.pi)
    slope = np.cos(angle) * ticks[None, None, :] + np.sin(angle) * ticks[None, :, None]
    light = 1 + _uniform(rng, n, 0, 0.4) * slope
    contrast = _uniform(rng, n, 0.6, 1.1)
    brightness = _uniform(rng, n, -0.12, 0.12)
    lit = 0.5 + contrast * (drawn * light - 0.5) + brightness
    grain = _uniform(rng, n, 0.01, 0.05) * rng.standard_normal((n, size, size), np.float32)
    pixels: Pixels = np.clip(np.rint((lit + grain) * 255), 0, 255).astype(np.uint8)
    return pixels


def _uniform(rng: np.random.Generator, n: int, low: float, high: float) -> FloatArray:
    return low + (high - low) * rng.random((n, 1, 1), np.float32)
