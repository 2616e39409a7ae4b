"""One image file: opened within bounds, and turned into the 8-bit pixels that its author saw.

Orientation tags are applied, wide integers and floats are scaled by their range, transparency is laid on mid-gray,
CMYK and colors of another profile become sRGB, and of several frames the first is taken.
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

from fertool.data.budget import Budget
from fertool.data.color import to_srgb
from fertool.data.wide import (
    WIDE_MODES,
    Samples,
    UnreadableSamplesError,
    opacity_of_gray,
    read_samples,
    value_in_8_bits,
    wide_to_gray,
)
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
"""What may be done to an image on the way to 8-bit gray or RGB, apart from that; lossless steps are not among them."""

LARGEST_PIXELS = 1 << 26
"""Pixels of the largest image that is decoded: about 64 million take up to 1.3 GB on the way."""
LARGEST_FILE = 1 << 29
"""Bytes of the largest image file that is opened; some decoders hold it as a whole."""

MID_GRAY = 128

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_SUFFIXES = frozenset(
    (
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
    )
)
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""How an image is turned upright, by the value of its orientation tag (EXIF 2.3, table 6)."""
_BLOCK = 1 << 16

_bytes_open = Budget(LARGEST_FILE)
_pixels_open = Budget(LARGEST_PIXELS)


@dataclass(frozen=True)
class Decoded:
    """An upright image of mode L or RGB, and those of `CONVERSIONS` that it took."""

    image: Image.Image
    conversions: frozenset[str]


@cache
def image_suffixes() -> frozenset[str]:
    """Return the suffixes of files that are images, in lower case; what Pillow was built without is not among them."""
    return _SUFFIXES | {f".{name}" for name in ("avif", "webp") if _is_built_in(name)}


def scan_image(path: Path) -> tuple[bytes, tuple[int, int]]:
    """Return the SHA-256 of an image file and its (width, height); the pixels are not decoded.

    Raises FertoolError naming a file that is no image, or too large a one.
    """
    with _opened(path) as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK):
            digest.update(block)
        file.seek(0)
        with _readable(path), _identified(file) as image:
            size = image.size
    _require_size(path, size)
    return digest.digest(), size


@contextmanager
def decoded_image(path: Path) -> Iterator[Decoded]:
    """Give an image file decoded; of such blocks as many run at once as hold `LARGEST_PIXELS` among them.

    Raises FertoolError naming a file that cannot be decoded, or whose header declares too many pixels.
    """
    with _opened(path) as file:
        with _readable(path):
            image = _identified(file)
        _require_size(path, image.size)
        with _pixels_open.take(image.size[0] * image.size[1]):
            with _readable(path):
                plain = _plain(image)
            yield plain


def file_state(path: Path) -> os.stat_result:
    """Return what the file system says of an image file; raises FertoolError unless it is a regular file."""
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


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    state = file_state(path)
    try:
        with _bytes_open.take(state.st_size), open(path, "rb") as file:
            yield file
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot be read ({error.strerror})", "check its permissions"
        ) from None


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Turn whatever a decoder raises into a FertoolError."""
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
    # The decoders are fed with damaged bytes and raise what these lead to, from SyntaxError to MemoryError.
    except Exception:
        raise FertoolError(
            f"{path}: not a readable image", "remove the file or copy it again"
        ) from None


def _identified(file: BinaryIO) -> ImageFile.ImageFile:
    formats = [*_FORMATS, "AVIF"] if _is_built_in("avif") else _FORMATS
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


def _plain(file: ImageFile.ImageFile) -> Decoded:
    """Decode an opened image, and do to it what makes it 8-bit gray or RGB, opaque and upright."""
    took: set[str] = set()
    samples = read_samples(file)
    # Pillow turns TIFF files upright while it loads them, and drops their tag.
    turned = file.format == "TIFF" and _orientation(file) in _TURNS
    file.load()
    color, alpha = _color_and_alpha(file, samples)
    took |= _depth_and_space(file, samples)
    if _has_more_frames(file):
        took.add("first frame")
    in_srgb = to_srgb(color, file.info.get("icc_profile"))
    if in_srgb is not None:
        took.add("color profile")
        color = in_srgb
    elif color.mode not in ("L", "RGB"):
        color = color.convert("RGB")
    if alpha is not None and alpha.getextrema() != (255, 255):
        took.add("transparency")
        color = _on_mid_gray(color, alpha)
    turn = _TURNS.get(_orientation(file))
    if turn is not None:
        color = color.transpose(turn)
    if turned or turn is not None:
        took.add("orientation")
    return Decoded(color, frozenset(took))


def _depth_and_space(file: ImageFile.ImageFile, samples: Samples) -> set[str]:
    found = {file.mode} & {"CMYK", "LAB"}
    if file.mode == "F":
        found.add("float")
    elif samples.bits > 8:
        found.add("16-bit" if samples.bits <= 16 else "32-bit")
    return found


def _has_more_frames(file: ImageFile.ImageFile) -> bool:
    """Say whether a loaded file has frames after the first; the pictures beside a photo of format MPO are none."""
    try:
        return file.format != "MPO" and bool(getattr(file, "is_animated", False))
    # GIF looks for a second frame, which may be damaged where the first is not.
    except Exception:
        return False


def _orientation(file: ImageFile.ImageFile) -> int:
    """Return the value of the orientation tag, 1 (upright) where there is none that can be read."""
    try:
        value = file.getexif().get(_ORIENTATION, 1)
    # A damaged tag leaves the pixels as good as they are.
    except Exception:
        return 1
    return value if isinstance(value, int) else 1


def _color_and_alpha(
    file: ImageFile.ImageFile, samples: Samples
) -> tuple[Image.Image, Image.Image | None]:
    """Return the colors in 8 bits (mode L, RGB, CMYK or LAB), and the opacity as mode L where the file has one."""
    if file.mode in (*WIDE_MODES, "1", "L"):
        return _gray_and_alpha(file, samples)
    if file.mode == "RGB" and "transparency" in file.info:
        transparent = file.info["transparency"]
        file.info["transparency"] = tuple(value_in_8_bits(value, samples) for value in transparent)
    if file.mode in ("LA", "La"):
        both = file.convert("LA")
        return both.getchannel("L"), both.getchannel("A")
    if file.has_transparency_data:
        both = file.convert("RGBA")
        return both.convert("RGB"), both.getchannel("A")
    return (file if file.mode in ("RGB", "CMYK", "LAB") else file.convert("RGB")), None


def _gray_and_alpha(
    file: ImageFile.ImageFile, samples: Samples
) -> tuple[Image.Image, Image.Image | None]:
    # Pillow states the transparent value in the file's units, and would take it for one of 8 bits.
    transparent = file.info.pop("transparency", None)
    if file.mode in WIDE_MODES:
        gray = wide_to_gray(file, samples)
        return gray, None if transparent is None else opacity_of_gray(file, transparent)
    gray = file.convert("L")
    if transparent is None:
        return gray, None
    # Of a white bit, some releases of Pillow say 1, others 255.
    level = 255 * bool(transparent) if file.mode == "1" else value_in_8_bits(transparent, samples)
    return gray, opacity_of_gray(gray, level)


def _on_mid_gray(color: Image.Image, alpha: Image.Image) -> Image.Image:
    background = Image.new(
        color.mode, color.size, MID_GRAY if color.mode == "L" else (MID_GRAY,) * 3
    )
    background.paste(color, mask=alpha)
    return background
