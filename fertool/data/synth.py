"""Faces drawn by the program: seven expressions, different people, poses and light, with no download."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fertool.data.cache import cached, holds
from fertool.data.drawing import Grid, Params, draw
from fertool.data.faces import NO_FINDINGS, SPLITS, Faces, Findings, Indices, Pixels
from fertool.data.fer2013 import write_csv
from fertool.data.labels import BASIC
from fertool.data.storage import Chunks
from fertool.errors import UsageError

DEFAULT_COUNT = 4000
MAX_COUNT = 1_000_000
MIN_COUNT = 10 * len(BASIC)
"""Fewer leave a class without an image in validation or test."""

_CHUNK = 16
"""Faces drawn at once: few enough for the temporary arrays to stay in the processor's cache."""
_CACHE_VERSION = 2

# What an expression does to a face, next to neutral; amounts in half-heights of the image or in shares.
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
    }
    | {"mouth_curve": -0.05, "brow_slant": -0.03},
    "fear": {
        "brow_raise": 0.08,
        "brow_slant": 0.1,
        "eye_open": 1.45,
        "mouth_open": 0.14,
        "mouth_width": 1.0,
    }
    | {"mouth_curve": -0.05, "teeth": 0.5, "squint": 0.0},
    "happy": {
        "mouth_curve": 0.14,
        "mouth_open": 0.1,
        "mouth_width": 1.15,
        "teeth": 0.9,
        "folds": 0.7,
        "squint": 0.4,
    }
    | {"eye_open": 0.85},
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
    }
    | {"squint": 0.0},
    "neutral": {},
}
_EXPRESSION_SPREAD = {
    "brow_raise": 0.018,
    "brow_slant": 0.02,
    "mouth_curve": 0.016,
    "mouth_open": 0.012,
} | {
    "eye_open": 0.08,
    "mouth_width": 0.06,
    "eye_droop": 0.15,
    "lip_raise": 0.01,
    "folds": 0.12,
    "frown": 0.1,
    "wrinkle": 0.05,
}

# Lowest and highest value of what has nothing to do with the expression.
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
_GLASSES_SHARE = 0.12
_SMILES_WITH_TEETH = 0.7


@dataclass(frozen=True)
class Synth:
    """Drawn faces as a source: the first 80 % are for training, then 10 % for validation and 10 % for testing."""

    name: str
    digest: str
    images: Pixels
    labels: Indices
    classes: tuple[str, ...] = BASIC
    splits: tuple[str, ...] = SPLITS
    findings: Findings = NO_FINDINGS

    def read(self, split: str) -> Faces:
        """Return one split."""
        own = np.array(split_names(len(self.labels))) == split
        return Faces(self.images, self.labels, self.classes).subset(own)


def is_synth(source: str) -> bool:
    """Say whether a `--data` value asks for drawn faces."""
    return source == "synth" or source.startswith("synth:")


def open_synth(source: str, seed: int, size: int | None, on_note: Callable[[str], None]) -> Synth:
    """Draw the faces of `synth` or `synth:COUNT`, or take them from the cache; the same seed gives the same faces."""
    count, side = _count(source), size or 48

    drawn = Chunks((count, 1, side, side), lambda: _draw(count, seed, side))
    key = f"synth-v{_CACHE_VERSION}-{count}-{seed}-{side}"
    stored = cached(
        key,
        lambda: {"images": drawn},
        on_note,
        lambda arrays: holds(arrays, "images", np.uint8, drawn.shape),
    )
    images, labels = stored["images"], _labels(count)
    digest = hashlib.sha256(images.reshape(-1).data)
    digest.update(labels.data)
    return Synth(source, digest.hexdigest(), images, labels)


def split_names(count: int) -> list[str]:
    """Return the split of each of `count` drawn faces; classes take turns, so each split is balanced."""
    part = round(0.1 * count)
    return ["train"] * (count - 2 * part) + ["val"] * part + ["test"] * part


def draw_faces(count: int, seed: int, size: int = 48) -> tuple[Pixels, Indices]:
    """Draw faces uint8 [N, 1, S, S] and labels int64 [N] in the order of fer2013.csv, classes by turns."""
    return np.concatenate(list(_draw(count, seed, size))), _labels(count)


def write_faces(path: Path, count: int, seed: int) -> None:
    """Draw faces and write them in the form of fer2013.csv, atomically."""
    images, labels = draw_faces(count, seed)
    write_csv(path, images, labels, split_names(count))


def _labels(count: int) -> Indices:
    return np.arange(count) % len(BASIC)


def _draw(count: int, seed: int, size: int) -> Iterator[Pixels]:
    """Yield the faces, uint8 [<= _CHUNK, 1, S, S] each."""
    rng = np.random.default_rng(seed)
    params = _sample(_labels(count), rng)
    for start in range(0, count, _CHUNK):
        part = {name: value[start : start + _CHUNK] for name, value in params.items()}
        yield _photograph(draw(part, size), rng)[:, None]


def _sample(labels: Indices, rng: np.random.Generator) -> Params:
    """Draw the parameters of each face, each [N, 1, 1]."""
    n = len(labels)
    intensity = _uniform(rng, n, 0.6, 1.15)
    p: Params = {}
    for name, rest in _NEUTRAL.items():
        full = np.array([_EXPRESSIONS[one].get(name, rest) for one in BASIC], np.float32)[
            labels
        ].reshape(-1, 1, 1)
        noise = np.clip(rng.standard_normal((n, 1, 1), np.float32), -2, 2)
        p[name] = rest + intensity * (full - rest) + _EXPRESSION_SPREAD.get(name, 0.0) * noise
    for name, (low, high) in _PERSON_AND_POSE.items():
        p[name] = _uniform(rng, n, low, high)
    p["glasses"] = (_uniform(rng, n, 0, 1) < _GLASSES_SHARE).astype(np.float32)
    # A smile without teeth is a closed one, and any mouth that is not open shows the line between the lips.
    closed = (labels == BASIC.index("happy")).reshape(-1, 1, 1) & (
        _uniform(rng, n, 0, 1) > _SMILES_WITH_TEETH
    )
    p["mouth_open"] = np.where(closed, np.float32(0), np.maximum(p["mouth_open"], 0))
    p["shut"] = np.clip(1 - p["mouth_open"] / 0.05, 0, 1)
    return p


def _photograph(drawn: Grid, rng: np.random.Generator) -> Pixels:
    """Light the drawing from a side, and add the contrast, brightness and grain of a poor camera: uint8 [N, S, S]."""
    n, size, _ = drawn.shape
    ticks = np.linspace(-1, 1, size, dtype=np.float32)
    angle = _uniform(rng, n, 0, 2 * np.pi)
    slope = np.cos(angle) * ticks[None, None, :] + np.sin(angle) * ticks[None, :, None]
    light = 1 + _uniform(rng, n, 0, 0.4) * slope
    lit = 0.5 + _uniform(rng, n, 0.6, 1.1) * (drawn * light - 0.5) + _uniform(rng, n, -0.12, 0.12)
    grain = _uniform(rng, n, 0.01, 0.05) * rng.standard_normal((n, size, size), np.float32)
    pixels: Pixels = np.clip(np.rint((lit + grain) * 255), 0, 255).astype(np.uint8)
    return pixels


def _uniform(rng: np.random.Generator, n: int, low: float, high: float) -> Grid:
    return low + (high - low) * rng.random((n, 1, 1), np.float32)


def _count(source: str) -> int:
    text = source.partition(":")[2] or str(DEFAULT_COUNT)
    if not text.isdecimal() or len(text) > 9 or not MIN_COUNT <= int(text) <= MAX_COUNT:
        raise UsageError(
            f"--data {source[:40]}: COUNT must be a number from {MIN_COUNT} to {MAX_COUNT}",
            "for example synth:4000",
        )
    return int(text)
