"""Samples of more or fewer than 8 bits, brought to 8 by the range that they are meant to fill."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

WIDE_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes of gray images with wide samples; wide colors it brings to 8 bits itself, by their upper byte."""

_FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_SLACK = 0.1
"""Fraction of its range by which a float image may leave it at either end, as resizing and sharpening do."""

_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 262, 284, 339
_SIGNED, _WHITE_IS_ZERO, _SEPARATE = 2, 0, 2


class UnreadableSamplesError(ValueError):
    """Samples that cannot be brought to 8 bits; the text says why."""


@dataclass(frozen=True)
class Samples:
    """How a file stores one value of a pixel; `inverted`: 0 is white, and Pillow leaves it so."""

    bits: int = 8
    signed: bool = False
    inverted: bool = False

    @property
    def largest(self) -> int:
        """The largest value that fits."""
        return int(2 ** (self.bits - self.signed)) - 1


def read_samples(file: ImageFile.ImageFile) -> Samples:
    """Return how an opened file stores its values; to be called before its pixels are loaded.

    Raises UnreadableSamplesError for wide colors in separate planes, from which Pillow reads every byte as a sample.
    """
    if file.format == "TIFF":
        widths = _tag(file, _BITS_PER_SAMPLE, (1,))
        bits = int(max(widths))
        if bits > 8 and len(widths) > 1 and _tag(file, _PLANES, 1) == _SEPARATE:
            raise UnreadableSamplesError(f"colors of {bits} bits in separate planes")
        signed = _tag(file, _SAMPLE_FORMAT, (1,))[0] == _SIGNED
        inverted = _tag(file, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO and file.mode in WIDE_MODES
        return Samples(bits, signed, inverted)
    if file.mode in ("I", "I;16"):
        return Samples(16)
    arguments: Any = file.tile[0][3] if file.tile else ""
    if file.format == "PPM" and isinstance(arguments, tuple):
        return Samples(16 if file.mode == "RGB" and arguments[1] > 255 else 8)
    stated = re.search(r";(\d+)", str(arguments)) if file.format == "PNG" else None
    return Samples(int(stated[1]) if stated else 8)


def wide_to_gray(file: Image.Image, samples: Samples) -> Image.Image:
    """Return a loaded image of one of `WIDE_MODES` as mode L.

    Integers fill the range of their type, or of 8 or 16 bits if no value exceeds these. Floats fill 0 to 1, -1 to 1,
    0 to 255 or 0 to 65535, the first of these that holds them, else the range from the least to the greatest of them.
    Raises UnreadableSamplesError for a value that is no finite number.
    """
    values = np.asarray(file)
    if samples.bits == 32 and not samples.signed and values.dtype == np.int32:
        values = values.view(np.uint32)
    low, high = _float_range(values) if file.mode == "F" else _integer_range(values, samples)
    scaled = values.astype(np.float32)
    scaled -= np.float32(low)
    scaled *= np.float32(255 / (high - low))
    np.rint(scaled, out=scaled)
    np.clip(scaled, 0, 255, out=scaled)
    levels = scaled.astype(np.uint8)
    return Image.fromarray(255 - levels if samples.inverted else levels)


def opacity_of_gray(file: Image.Image, transparent: int) -> Image.Image:
    """Return the opacity, mode L, of a gray image in which one value means transparent."""
    opaque = np.asarray(file) != transparent
    return Image.fromarray(opaque.astype(np.uint8) * np.uint8(255))


def value_in_8_bits(value: int, samples: Samples) -> int:
    """Return what a value of the file is after Pillow brought its pixels to 8 bits."""
    return value >> 8 if samples.bits == 16 else value * 255 // samples.largest


def _integer_range(values: NDArray[Any], samples: Samples) -> tuple[float, float]:
    if samples.signed and values.min() < 0:
        return -samples.largest - 1, samples.largest
    top = values.max()
    return 0, next(
        (limit for limit in (255, 65535) if top <= limit < samples.largest), samples.largest
    )


def _float_range(values: NDArray[Any]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(high - low):
        raise UnreadableSamplesError("a value that is no finite number")
    for least, most in _FLOAT_RANGES:
        slack = _SLACK * (most - least)
        if least - slack <= low and high <= most + slack:
            return least, most
    return low, high if high > low else low + 1


def _tag(file: ImageFile.ImageFile, tag: int, default: Any) -> Any:
    tags: Any = getattr(file, "tag_v2", {})
    return tags.get(tag, default)
