"""Open one image file within bounds, and decode it to the 8-bit pixels that its author saw.

Orientation tags are applied, integers of more than 8 bits and floats are scaled by their range,
transparency is composited on mid-gray, CMYK and colors of another profile become sRGB, and of
several frames the first is taken.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageFile, features

from fertool.data.bit_depth import (
    HIGH_DEPTH_MODES,
    SampleFormat,
    UnreadableSamplesError,
    high_depth_to_gray,
    opacity_of_gray,
    read_sample_format,
    value_in_8_bits,
)
from fertool.data.color_profiles import to_srgb
from fertool.data.weighted_semaphore import WeightedSemaphore
from fertool.errors import FertoolError

CONVERSIONS = (
    "orientation",
    "16-bit",
    "32-bit",
    "float",
    "transparency",
    "CMYK",
    "LAB",
    "color profile",
    "first frame",
)
"""What may be done to an image to make it 8-bit gray or RGB; lossless steps are not listed."""

LARGEST_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded: 64 million take up to 1.3 GB while they are."""
LARGEST_FILE = 1 << 29
"""Bytes of the largest image file that is opened; some decoders hold it as a whole."""

MID_GRAY = 128

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = frozenset(
    [
        ".bmp",
        ".gif",
        ".jfif",
        ".jpe",
        ".jpeg",
        ".jpg",
        ".pbm",
        ".pfm",
        ".pgm",
        ".png",
        ".pnm",
        ".ppm",
        ".tif",
        ".tiff",
    ]
)
HEIC_SUFFIXES = frozenset([".heic", ".heif"])
"""Files of phones, which Pillow reads with the package pillow-heif."""
_ORIENTATION = 0x0112
_TRANSPOSE_OF_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is made upright, by the value of its orientation tag (EXIF 2.3, table 6)."""
_BLOCK = 1 << 16

_open_bytes = WeightedSemaphore(LARGEST_FILE)
_open_pixels = WeightedSemaphore(LARGEST_PIXELS)


@dataclass(frozen=True)
class Decoded:
    """An upright image of mode L or RGB, and the `CONVERSIONS` that were applied to it."""

    image: Image.Image
    conversions: frozenset[str]


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of image files in lower case, without formats that Pillow cannot read."""
    optional = {f".{name}" for name in ("avif", "webp") if _is_built_in(name)}
    if _has_heif():
        optional |= HEIC_SUFFIXES
    return _SUFFIXES | optional


def scan_image(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Return the SHA-256 of an image file and its (width, height), without decoding the pixels.

    Raises FertoolError naming a file that is not an image, or too large a one.
    """
    with _opened(path) as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        file.seek(0)
        with _decoder_errors(path), _open_image(file) as image:
            size = image.size
    _require_size(path, size)
    return digest.digest(), size


@contextmanager
def decoded_image(path: Path) -> Iterator[Decoded]:
    """Yield an image file decoded.

    Threads inside such blocks wait, so that they hold `LARGEST_PIXELS` together at most.
    Raises FertoolError naming a file that cannot be decoded, or whose header declares too many
    pixels.
    """
    with _opened(path) as file, decoded_stream(file, path) as decoded:
        yield decoded


@contextmanager
def decoded_stream(file: BinaryIO, where: Path) -> Iterator[Decoded]:
    """Yield the image in an open file decoded, as `decoded_image` does; errors name `where`."""
    with _decoder_errors(where):
        image = _open_image(file)
    _require_size(where, image.size)
    width, height = image.size
    with _open_pixels.acquire(width * height):
        with _decoder_errors(where):
            decoded = _decode(image)
        yield decoded


def file_state(path: Path) -> os.stat_result:
    """Return the status of an image file; raises FertoolError unless it is a regular file."""
    try:
        state = path.stat()
    except FileNotFoundError:
        raise FertoolError(
            f"{path}: no such image, but the data set lists it", "copy the data set again"
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise FertoolError(
            f"{path}: cannot be read ({reason})", "check its name and permissions"
        ) from None
    if not stat.S_ISREG(state.st_mode):
        raise FertoolError(
            f"{path}: an image's name, but not a regular file", "put the image itself in its place"
        )
    if state.st_size > LARGEST_FILE:
        raise FertoolError(
            f"{path}: a file of {state.st_size:,} bytes; images have up to {LARGEST_FILE:,}",
            "remove it or make it smaller",
        )
    return state


def _is_built_in(name: str) -> bool:
    return name in features.modules and features.check_module(name)


@cache
def _has_heif() -> bool:
    """Return whether Pillow reads HEIC files; registers the reader where it is installed."""
    try:
        import pillow_heif
    except ImportError:
        return False
    pillow_heif.register_heif_opener(thumbnails=False)
    return True


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """Yield an image file opened; threads hold `LARGEST_FILE` bytes of files together at most.

    Raises FertoolError for what cannot be read.
    """
    state = file_state(path)
    try:
        with _open_bytes.acquire(state.st_size), open(path, "rb") as file:
            yield file
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot be read ({error.strerror})", "check its permissions"
        ) from None


@contextmanager
def _decoder_errors(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a FertoolError that names the file."""
    try:
        yield
    except FertoolError:
        raise
    except Image.DecompressionBombError:
        # Pillow's own limit, which is higher, is tested before the size is known here.
        raise _too_large(path, "too many") from None
    except UnreadableSamplesError as error:
        raise FertoolError(
            f"{path}: not a readable image: {error}", "save it as a PNG, or remove it"
        ) from None
    # On damaged bytes the decoders raise anything from SyntaxError to MemoryError.
    except Exception:
        hint = "remove the file or copy it again"
        if path.suffix.lower() in HEIC_SUFFIXES and not _has_heif():
            hint = "pip install 'fertool[heic]' to read pictures of this kind"
        raise FertoolError(f"{path}: not a readable image", hint) from None


def _open_image(file: BinaryIO) -> ImageFile.ImageFile:
    # A closed list: of Pillow's other formats EPS, for one, runs a program.
    formats = list(_FORMATS)
    if _is_built_in("avif"):
        formats.append("AVIF")
    if _has_heif():
        formats.append("HEIF")
    return Image.open(file, formats=formats)


def _require_size(path: Path, size: tuple[int, int]) -> None:
    width, height = size
    if not 1 <= width * height <= LARGEST_PIXELS:
        raise _too_large(path, f"{width}x{height}")


def _too_large(path: Path, declared: str) -> FertoolError:
    return FertoolError(
        f"{path}: declares {declared} pixels; images have up to {LARGEST_PIXELS:,}",
        "remove it or make it smaller",
    )


def _decode(file: ImageFile.ImageFile) -> Decoded:
    """Decode an opened image to 8-bit gray or RGB, opaque and upright."""
    applied: set[str] = set()
    samples = read_sample_format(file)
    # Pillow turns TIFF files upright while it loads them, and drops their tag.
    turned_by_pillow = file.format == "TIFF" and _orientation(file) in _TRANSPOSE_OF_ORIENTATION
    file.load()

    color, alpha = _color_and_alpha(file, samples)
    applied |= _depth_and_space(file, samples)
    if _has_more_frames(file):
        applied.add("first frame")

    in_srgb = to_srgb(color, file.info.get("icc_profile"))
    if in_srgb is not None:
        applied.add("color profile")
        color = in_srgb
    elif color.mode not in ("L", "RGB"):
        color = color.convert("RGB")

    if alpha is not None and alpha.getextrema() != (255, 255):
        applied.add("transparency")
        color = _on_mid_gray(color, alpha)

    transpose = _TRANSPOSE_OF_ORIENTATION.get(_orientation(file))
    if transpose is not None:
        color = color.transpose(transpose)
    if turned_by_pillow or transpose is not None:
        applied.add("orientation")
    return Decoded(color, frozenset(applied))


def _depth_and_space(file: ImageFile.ImageFile, samples: SampleFormat) -> set[str]:
    """Return the conversions that the depth and the color space of a file take."""
    found = {file.mode} & {"CMYK", "LAB"}
    if file.mode == "F":
        found.add("float")
    elif samples.bits > 16:
        found.add("32-bit")
    elif samples.bits > 8:
        found.add("16-bit")
    return found


def _has_more_frames(file: ImageFile.ImageFile) -> bool:
    """Return whether a loaded file has frames after the first one.

    The pictures that a photo of format MPO carries beside the main one do not count.
    """
    try:
        return file.format != "MPO" and bool(getattr(file, "is_animated", False))
    # GIF looks for a second frame, which may be damaged where the first is not.
    except Exception:
        return False


def _orientation(file: ImageFile.ImageFile) -> int:
    """Return the value of the orientation tag, 1 (upright) where none can be read."""
    try:
        value = file.getexif().get(_ORIENTATION)
    # A damaged tag leaves the pixels as good as they are.
    except Exception:
        return 1
    if not isinstance(value, int):
        return 1
    return value


def _color_and_alpha(
    file: ImageFile.ImageFile, samples: SampleFormat
) -> tuple[Image.Image, Image.Image | None]:
    """Return the colors in 8 bits (mode L, RGB, CMYK or LAB), and the opacity (mode L) if any."""
    if file.mode in (*HIGH_DEPTH_MODES, "1", "L"):
        return _gray_and_alpha(file, samples)
    if file.mode in ("LA", "La"):
        both = file.convert("LA")
        return both.getchannel("L"), both.getchannel("A")

    if file.mode == "RGB" and "transparency" in file.info:
        # Like the pixels, which Pillow has brought to 8 bits; it leaves this value as it was.
        transparent = file.info["transparency"]
        file.info["transparency"] = tuple(value_in_8_bits(value, samples) for value in transparent)
    if file.has_transparency_data:
        both = file.convert("RGBA")
        return both.convert("RGB"), both.getchannel("A")
    if file.mode in ("RGB", "CMYK", "LAB"):
        return file, None
    return file.convert("RGB"), None


def _gray_and_alpha(
    file: ImageFile.ImageFile, samples: SampleFormat
) -> tuple[Image.Image, Image.Image | None]:
    # Pillow states the transparent value in the file's units, and would take it for one of 8 bits.
    transparent = file.info.pop("transparency", None)
    if file.mode in HIGH_DEPTH_MODES:
        gray = high_depth_to_gray(file, samples)
        # On the file's own values: scaling may have made several of them equal.
        alpha = None if transparent is None else opacity_of_gray(file, transparent)
        return gray, alpha

    gray = file.convert("L")
    if transparent is None:
        return gray, None
    if file.mode == "1":
        # Some releases of Pillow state a white bit as 1, others as 255.
        return gray, opacity_of_gray(gray, 255 * bool(transparent))
    return gray, opacity_of_gray(gray, value_in_8_bits(transparent, samples))


def _on_mid_gray(color: Image.Image, alpha: Image.Image) -> Image.Image:
    """Composite colors (mode L or RGB) on a mid-gray background."""
    gray = MID_GRAY if color.mode == "L" else (MID_GRAY, MID_GRAY, MID_GRAY)
    background = Image.new(color.mode, color.size, gray)
    background.paste(color, mask=alpha)
    return background
