"""Images with more or fewer than 8 bits a sample, scaled to 8 bits by their range of values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

HIGH_DEPTH_MODES = ("I", "I;16", "I;16B", "I;16L", "I;16N", "F")
"""Pillow's modes of gray images of more than 8 bits; it converts such colors to 8 bits itself, by
their upper byte."""

_FLOAT_RANGES = ((0.0, 1.0), (-1.0, 1.0), (0.0, 255.0), (0.0, 65535.0))
_TOLERANCE = 0.1
"""Fraction of its range by which a float image may exceed it at either end, as it does after
resizing and sharpening."""

# Tags of TIFF and their values (TIFF 6.0, section 8 and section 19).
_BITS_PER_SAMPLE, _PHOTOMETRIC, _PLANAR_CONFIGURATION, _SAMPLE_FORMAT = 258, 262, 284, 339
_SIGNED, _WHITE_IS_ZERO, _SEPARATE = 2, 0, 2


class UnreadableSamplesError(ValueError):
    """Samples that cannot be converted to 8 bits; the message names the reason."""


@dataclass(frozen=True)
class SampleFormat:
    """How a file stores one value of a pixel; `inverted`: 0 is white, and Pillow leaves it so."""

    bits: int = 8
    signed: bool = False
    inverted: bool = False

    @property
    def largest(self) -> int:
        """The largest value that fits."""
        return int(2 ** (self.bits - self.signed)) - 1


def read_sample_format(file: ImageFile.ImageFile) -> SampleFormat:
    """Return how an opened file stores its values; call it before the pixels are loaded.

    Raises UnreadableSamplesError for colors of more than 8 bits in separate planes, from which
    Pillow reads every byte as a sample.
    """
    if file.format == "TIFF":
        return _tiff_format(file)
    if file.mode in ("I", "I;16"):
        return SampleFormat(16)

    # Pillow drops the bits of colors when it opens a file: only the decoder's arguments have them.
    arguments: Any = file.tile[0][3] if file.tile else ""
    if file.format == "PPM" and isinstance(arguments, tuple):
        largest_value = arguments[1]
        if file.mode == "RGB" and largest_value > 255:
            return SampleFormat(16)
    if file.format == "PNG":
        # The decoder's raw mode, such as `L;2` or `RGB;16B`, keeps the depth that the file has.
        stated_bits = re.search(r";(\d+)", str(arguments))
        if stated_bits:
            return SampleFormat(int(stated_bits[1]))
    return SampleFormat(8)


def _tiff_format(file: ImageFile.ImageFile) -> SampleFormat:
    bits_per_sample = _tag(file, _BITS_PER_SAMPLE, (1,))
    bits = int(max(bits_per_sample))
    is_separate = _tag(file, _PLANAR_CONFIGURATION, 1) == _SEPARATE
    if bits > 8 and len(bits_per_sample) > 1 and is_separate:
        raise UnreadableSamplesError(f"colors of {bits} bits in separate planes")
    signed = _tag(file, _SAMPLE_FORMAT, (1,))[0] == _SIGNED
    # Pillow itself inverts white-is-zero images of 8 bits and fewer.
    inverted = _tag(file, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO and file.mode in HIGH_DEPTH_MODES
    return SampleFormat(bits, signed, inverted)


def high_depth_to_gray(file: Image.Image, samples: SampleFormat) -> Image.Image:
    """Return a loaded image of one of `HIGH_DEPTH_MODES` as mode L.

    Integers fill the range of their type, or of 8 or 16 bits if no value exceeds it. Floats fill 0
    to 1, -1 to 1, 0 to 255 or 0 to 65535, the first of these that holds them, else the range from
    the smallest to the largest of them. Raises UnreadableSamplesError for a value that is not a
    finite number.
    """
    values = np.asarray(file)
    # Pillow has no unsigned mode of 32 bits: it loads such samples as int32.
    if samples.bits == 32 and not samples.signed and values.dtype == np.int32:
        values = values.view(np.uint32)
    if file.mode == "F":
        low, high = _float_range(values)
    else:
        low, high = _integer_range(values, samples)

    # In place: an image of the largest size takes 256 MB for each copy.
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


def value_in_8_bits(value: int, samples: SampleFormat) -> int:
    """Return what a value of the file is after Pillow converted its pixels to 8 bits."""
    if samples.bits == 16:
        return value >> 8
    return value * 255 // samples.largest


def _integer_range(values: NDArray[Any], samples: SampleFormat) -> tuple[float, float]:
    if samples.signed and values.min() < 0:
        return -samples.largest - 1, samples.largest
    top = values.max()
    # Pixels of 8 or 16 bits are often stored in wider types.
    for limit in (255, 65535):
        if top <= limit < samples.largest:
            return 0, limit
    return 0, samples.largest


def _float_range(values: NDArray[Any]) -> tuple[float, float]:
    low = float(values.min())
    high = float(values.max())
    if not np.isfinite(high - low):
        raise UnreadableSamplesError("a value that is no finite number")
    for range_low, range_high in _FLOAT_RANGES:
        slack = _TOLERANCE * (range_high - range_low)
        if range_low - slack <= low and high <= range_high + slack:
            return range_low, range_high
    return low, high if high > low else low + 1


def _tag(file: ImageFile.ImageFile, tag: int, default: Any) -> Any:
    tags: Any = getattr(file, "tag_v2", {})
    return tags.get(tag, default)
