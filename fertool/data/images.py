"""Image files, decoded by parallel threads into one array; each folder layout only lists what belongs where."""

from __future__ import annotations

import hashlib
import io
import os
import statistics
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image

from fertool.data.faces import SPLITS, Faces, Indices, Pixels
from fertool.errors import FertoolError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MODES = {1: "L", 3: "RGB"}

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True)
class Entry:
    """One image file, the canonical name of its expression, and the part of it to take (None: all)."""

    path: Path
    expression: str
    box: Box | None = None


@dataclass(frozen=True)
class _Scanned:
    digest: bytes
    size: tuple[int, int]


class ImageTree:
    """A source made of image files: `listing` has a tuple of entries for each split.

    `size` is the side in pixels to which all images are resized; None keeps the common size of the files, or takes the
    median of their short sides when they differ. `digest` covers the relative path, label and bytes of every file.
    """

    def __init__(
        self,
        root: Path,
        classes: tuple[str, ...],
        listing: Mapping[str, Iterable[Entry]],
        *,
        size: int | None = None,
        channels: int = 1,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.name = str(root)
        self.classes = classes
        self._root = root
        self._listing = {split: tuple(listing[split]) for split in SPLITS if listing.get(split)}
        self._size = size
        self._channels = channels
        self._on_note = on_note

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have files."""
        return tuple(self._listing)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all files, hexadecimal."""
        total = hashlib.sha256()
        for split, entries in self._listing.items():
            for entry in entries:
                place = entry.path.relative_to(self._root).as_posix()
                total.update(f"{split}\0{place}\0{entry.expression}\0{entry.box}\0".encode())
                total.update(self._scanned[entry.path].digest)
        return total.hexdigest()

    def read(self, split: str) -> Faces:
        """Decode the images of one of `splits`; raises FertoolError naming a file that cannot be decoded."""
        entries = self._listing[split]
        labels: Indices = np.array([self.classes.index(entry.expression) for entry in entries], np.int64)
        return Faces(read_images(entries, self._side, self._channels), labels, self.classes)

    @cached_property
    def _scanned(self) -> Mapping[Path, _Scanned]:
        paths = sorted({entry.path for entries in self._listing.values() for entry in entries})
        with _threads() as pool:
            return dict(zip(paths, pool.map(_scan, paths), strict=True))

    @cached_property
    def _side(self) -> int:
        if self._size is not None:
            return self._size
        entries = [entry for part in self._listing.values() for entry in part]
        sizes = {_box_size(e.box) if e.box else self._scanned[e.path].size for e in entries}
        if len(sizes) == 1 and len(set(next(iter(sizes)))) == 1:
            return next(iter(sizes))[0]
        short = (min(_box_size(e.box) if e.box else self._scanned[e.path].size) for e in entries)
        side = statistics.median_low(short)
        self._on_note(f"{self.name}: images of {len(sizes)} sizes, all resized to {side}x{side}")
        return side


def read_images(entries: Iterable[Entry], size: int, channels: int) -> Pixels:
    """Decode, crop, convert to gray or RGB and resize: uint8 [N, channels, size, size], in the order of `entries`.

    Resizing is bilinear with antialiasing, as in `fertool.data.pixels.resize`. Raises FertoolError naming the file.
    """
    listed = tuple(entries)
    images = np.empty((len(listed), channels, size, size), np.uint8)

    def decode(i: int) -> None:
        images[i] = _decode(listed[i], size, channels)

    with _threads() as pool:
        for _ in pool.map(decode, range(len(listed))):
            pass
    return images


def image_files(folder: Path) -> list[Path]:
    """Return the image files directly inside a folder, sorted by name; hidden ones and other kinds are left out."""
    return sorted(
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    )


def _decode(entry: Entry, size: int, channels: int) -> Pixels:
    try:
        with Image.open(entry.path, formats=_FORMATS) as file:
            image = file.convert(_MODES[channels])
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise _unreadable(entry.path) from None
    if entry.box is not None:
        image = image.crop(entry.box)
    if image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels: Pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _scan(path: Path) -> _Scanned:
    try:
        content = path.read_bytes()
    except OSError:
        raise _unreadable(path) from None
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return _Scanned(hashlib.sha256(content).digest(), image.size)
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise _unreadable(path) from None


def _unreadable(path: Path) -> FertoolError:
    if not path.exists():
        return FertoolError(f"{path}: no such image, but the data set lists it", "copy the data set again")
    return FertoolError(f"{path}: not a readable image", "remove the file or copy it again")


def _box_size(box: Box) -> tuple[int, int]:
    return box[2] - box[0], box[3] - box[1]


def _threads() -> ThreadPoolExecutor:
    # Decoding and hashing release the interpreter's lock.
    return ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1))
