"""Image files decoded or scanned by parallel threads, in batches of bounded memory."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from fertool.data.cache import Arrays
from fertool.data.decoding import CONVERSIONS, LARGEST_PIXELS, decoded_image, scan_image
from fertool.data.reader import Pixels
from fertool.errors import FertoolError

_MODES = {1: "L", 3: "RGB"}
_BATCH_FILES = 256
"""Files in work at once, so that memory stays bounded."""
_BATCH_BYTES = 1 << 26
"""Decoded pixels in work at once; fewer files are in work where images are large."""

_FARTHEST = 1 << 16
"""Pixels: no photo has a face farther from its corner."""

T = TypeVar("T")

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image file, the name of its class, and the box to crop (None: no crop)."""

    path: Path
    label: str
    box: Box | None = None


def require_box(box: Box, where: str, hint: str) -> None:
    """Raise FertoolError for a box that lies in no photo: empty, too far away, or too large."""
    left, top, right, bottom = box
    width = right - left
    height = bottom - top
    # Coordinates of a damaged list may be of any size; their product alone could still be small.
    is_far = max(abs(edge) for edge in box) > _FARTHEST
    if min(width, height) <= 0 or is_far or width * height > LARGEST_PIXELS:
        raise FertoolError(
            f"{where}: a box from {left},{top} to {right},{bottom} lies in no photo", hint
        )


@dataclass(frozen=True)
class DecodingMarks:
    """What `decode_images` finds out about each of N images, filled in while they are decoded.

    `conversions` uint8 [N, CONVERSIONS]: 1 for each that was applied; `unreadable` uint8 [N]: 1 for
    an image that could not be decoded.
    """

    conversions: NDArray[np.uint8]
    unreadable: NDArray[np.uint8]

    @classmethod
    def empty(cls, count: int) -> DecodingMarks:
        """Return marks of images of which none is decoded yet."""
        return cls(np.zeros((count, len(CONVERSIONS)), np.uint8), np.zeros(count, np.uint8))


def decode_images(
    entries: Sequence[ImageEntry],
    size: int,
    channels: int,
    marks: DecodingMarks | None = None,
    *,
    skip_unreadable: bool = False,
) -> Iterator[Pixels]:
    """Decode, crop, convert to gray or RGB and resize: uint8 [<= 256, channels, size, size] each.

    The images come in order. Resizing is bilinear with antialiasing, as in
    `fertool.data.pixels.resize`. What is found out is set in `marks`. Raises FertoolError naming a
    file that cannot be decoded, unless it is to be skipped: then its pixels are 0.
    """
    image_bytes = channels * size * size
    batch_size = max(1, min(_BATCH_FILES, _BATCH_BYTES // image_bytes))

    def decode(entry: ImageEntry) -> tuple[Pixels, frozenset[str]] | None:
        try:
            return _decode(entry, size, channels)
        except FertoolError:
            if not skip_unreadable:
                raise
            return None

    # Yielded in batches: all images together may be larger than memory.
    done = 0
    for batch in _in_threads(decode, entries, batch_size):
        pixels = np.zeros((len(batch), channels, size, size), np.uint8)
        for row, decoded in enumerate(batch):
            if decoded is not None:
                pixels[row] = decoded[0]
            if marks is not None:
                _mark(marks, done + row, decoded)
        done += len(batch)
        yield pixels


def _mark(marks: DecodingMarks, row: int, decoded: tuple[Pixels, frozenset[str]] | None) -> None:
    marks.unreadable[row] = decoded is None
    if decoded is not None:
        marks.conversions[row] = [name in decoded[1] for name in CONVERSIONS]


def _decode(entry: ImageEntry, size: int, channels: int) -> tuple[Pixels, frozenset[str]]:
    with decoded_image(entry.path) as decoded:
        image = decoded.image
        if image.mode != _MODES[channels]:
            image = image.convert(_MODES[channels])
        if entry.box is not None:
            # Pillow fills what lies outside with black, even where that is all.
            _require_overlap(entry.path, entry.box, image.size)
            image = image.crop(entry.box)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels: Pixels = np.asarray(image)
    if channels == 1:
        return pixels[None], decoded.conversions
    return pixels.transpose(2, 0, 1), decoded.conversions


def fit_pictures(images: Tensor, size: int, channels: int) -> Tensor:
    """Return pictures uint8 [N, 1 or 3, H, W] as [N, channels, size, size], by Pillow.

    As image files are read: converted to gray or RGB, then resized, bilinear with antialiasing.
    """
    if tuple(images.shape[1:]) == (channels, size, size):
        return images
    fitted = torch.empty((len(images), channels, size, size), dtype=torch.uint8)
    for row, pixels in enumerate(images.numpy()):
        # Pillow takes gray pixels without an axis of channels.
        array = pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)
        picture = Image.fromarray(np.ascontiguousarray(array)).convert(_MODES[channels])
        resized = np.array(picture.resize((size, size), Image.Resampling.BILINEAR))
        planes = resized.reshape(size, size, channels).transpose(2, 0, 1)
        fitted[row] = torch.from_numpy(np.ascontiguousarray(planes))
    return fitted


def _require_overlap(path: Path, box: Box, size: tuple[int, int]) -> None:
    """Raise FertoolError unless a face box overlaps an image of this (width, height)."""
    left, top, right, bottom = box
    width, height = size
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise FertoolError(
            f"{path}: {width}x{height} pixels, but the face box of the list is {left},{top} to "
            f"{right},{bottom}",
            "the list belongs to other images: copy the data set again",
        )


def scan_images(entries: Sequence[ImageEntry], *, skip_unreadable: bool = False) -> Arrays:
    """Return SHA-256 `digests` uint8 [F, 32] and `sizes` (width, height) int32 [F, 2] of the files.

    Raises FertoolError naming a file that is no image, unless it is to be skipped: then its size is
    0, 0.
    """

    def scan(entry: ImageEntry) -> tuple[bytes, tuple[int, int]]:
        try:
            return scan_image(entry.path)
        except FertoolError:
            if not skip_unreadable:
                raise
            return bytes(32), (0, 0)

    digests = np.empty((len(entries), 32), np.uint8)
    sizes = np.empty((len(entries), 2), np.int32)
    row = 0
    for batch in _in_threads(scan, entries, _BATCH_FILES):
        for digest, size in batch:
            digests[row] = np.frombuffer(digest, np.uint8)
            sizes[row] = size
            row += 1
    return {"digests": digests, "sizes": sizes}


def _in_threads(
    work: Callable[[ImageEntry], T], entries: Sequence[ImageEntry], batch_size: int
) -> Iterator[list[T]]:
    """Yield the results in order, a list for every `batch_size` entries."""
    # Threads are enough: decoding and hashing release the interpreter's lock.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(entries), batch_size):
            with warnings.catch_warnings():
                # What Pillow warns of is either handled or an error by our own limits.
                warnings.simplefilter("ignore")
                results = list(pool.map(work, entries[start : start + batch_size]))
            yield results
