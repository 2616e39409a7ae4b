"""Image files, decoded by parallel threads into the cache; each folder layout only lists what belongs where."""

from __future__ import annotations

import hashlib
import io
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image

from fertool.data.cache import Arrays, cached
from fertool.data.faces import SPLITS, Faces, Indices, Pixels
from fertool.data.storage import Chunks
from fertool.errors import FertoolError

SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}

_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
_MODES = {1: "L", 3: "RGB"}

_CACHE_VERSION = 1
_AT_ONCE = 256
"""Files in work at once, so that memory stays bounded."""
_SETTLED_NS = 2_000_000_000
"""A file changed later than this before it is read could change again without a sign: clocks of file systems are
coarse."""

T = TypeVar("T")

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One image file, the canonical name of its expression, and the part of it to take (None: all)."""

    path: Path
    expression: str
    box: Box | None = None


class ImageTree:
    """A source made of image files: `listing` has a tuple of entries for each split.

    `size` is the side in pixels to which all images are resized; None keeps the common size of the files, or takes the
    median of their short sides when they differ. `digest` covers the relative path, label and bytes of every file, and
    decoded images are kept under it. What files hold is kept by what the file system says of them (path, size, times of
    change, as git does), so that a large set is read once; the same bytes elsewhere have the same digest still.
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
        files = ((split, entry) for split, entries in self._listing.items() for entry in entries)
        for (split, entry), digest in zip(files, self._scanned["digests"], strict=True):
            total.update(f"{split}\0{self._place(entry)}\0{entry.expression}\0{entry.box}\0".encode())
            total.update(digest)
        return total.hexdigest()

    def read(self, split: str) -> Faces:
        """Decode the images of one of `splits`; raises FertoolError naming a file that cannot be decoded."""
        entries = self._listing[split]
        labels: Indices = np.array([self.classes.index(entry.expression) for entry in entries], np.int64)
        side, channels = self._side, self._channels
        images = Chunks((len(entries), channels, side, side), lambda: decode(entries, side, channels))
        key = f"images-v{_CACHE_VERSION}-{self.digest}-{split}-{side}-{channels}"
        return Faces(cached(key, lambda: {"images": images}, self._on_note)["images"], labels, self.classes)

    @cached_property
    def _entries(self) -> tuple[Entry, ...]:
        return tuple(entry for entries in self._listing.values() for entry in entries)

    def _place(self, entry: Entry) -> str:
        return entry.path.relative_to(self._root).as_posix()

    @cached_property
    def _scanned(self) -> Arrays:
        """SHA-256 uint8 [F, 32] and size (width, height) int32 [F, 2] of the file of each entry, in order."""
        known, newest, now = hashlib.sha256(), 0, time.time_ns()
        for entry in self._entries:
            state = _state(entry.path)
            known.update(f"{self._place(entry)}\0{state.st_size}\0{state.st_mtime_ns}\0{state.st_ctime_ns}\0".encode())
            newest = max(newest, state.st_mtime_ns)
        if newest > now - _SETTLED_NS:
            return _scan(self._entries)
        return cached(f"files-v{_CACHE_VERSION}-{known.hexdigest()}", lambda: _scan(self._entries), self._on_note)

    @cached_property
    def _side(self) -> int:
        if self._size is not None:
            return self._size
        sizes = self._scanned["sizes"].copy()
        for i, entry in enumerate(self._entries):
            if entry.box:
                sizes[i] = entry.box[2] - entry.box[0], entry.box[3] - entry.box[1]
        side: int = statistics.median_low(sizes.min(axis=1).tolist())
        if (sizes != side).any():
            different = len(np.unique(sizes, axis=0))
            self._on_note(f"{self.name}: images of {different} sizes, all resized to {side}x{side}")
        return side


def decode(entries: Sequence[Entry], size: int, channels: int) -> Iterator[Pixels]:
    """Decode, crop, convert to gray or RGB and resize: uint8 [<= 256, channels, size, size] each, in order.

    Resizing is bilinear with antialiasing, as in `fertool.data.pixels.resize`. Raises FertoolError naming the file.
    """
    for images in _by_threads(lambda entry: _decode(entry, size, channels), entries):
        yield np.stack(images)


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


def _scan(entries: Sequence[Entry]) -> Arrays:
    digests, sizes = np.empty((len(entries), 32), np.uint8), np.empty((len(entries), 2), np.int32)
    found = itertools.chain.from_iterable(_by_threads(lambda entry: _scan_file(entry.path), entries))
    for i, (digest, size) in enumerate(found):
        digests[i], sizes[i] = np.frombuffer(digest, np.uint8), size
    return {"digests": digests, "sizes": sizes}


def _scan_file(path: Path) -> tuple[bytes, tuple[int, int]]:
    try:
        content = path.read_bytes()
    except OSError:
        raise _unreadable(path) from None
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            return hashlib.sha256(content).digest(), image.size
    except (OSError, ValueError, SyntaxError, EOFError, Image.DecompressionBombError):
        raise _unreadable(path) from None


def _state(path: Path) -> os.stat_result:
    try:
        return path.stat()
    except OSError:
        raise _unreadable(path) from None


def _unreadable(path: Path) -> FertoolError:
    if not path.exists():
        return FertoolError(f"{path}: no such image, but the data set lists it", "copy the data set again")
    return FertoolError(f"{path}: not a readable image", "remove the file or copy it again")


def _by_threads(work: Callable[[Entry], T], entries: Sequence[Entry]) -> Iterator[list[T]]:
    """Yield the results in order, a list for every `_AT_ONCE` entries."""
    # Decoding and hashing release the interpreter's lock.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(entries), _AT_ONCE):
            yield list(pool.map(work, entries[start : start + _AT_ONCE]))
