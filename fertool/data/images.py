"""Image files, decoded by parallel threads into the cache; each folder layout only lists what belongs where."""

from __future__ import annotations

import hashlib
import itertools
import os
import statistics
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fertool.data.cache import Arrays, cached, holds
from fertool.data.decoding import CONVERSIONS, decoded_image, file_state, image_suffixes, scan_image
from fertool.data.faces import NO_FINDINGS, SPLITS, Faces, Findings, Indices, Pixels
from fertool.data.storage import Chunks
from fertool.errors import FertoolError

_MODES = {1: "L", 3: "RGB"}

_CACHE_VERSION = 2
_AT_ONCE = 256
"""Files in work at once, so that memory stays bounded."""
_BYTES_AT_ONCE = 1 << 26
"""Decoded pixels in work at once; fewer files are in work where they are large."""
_LARGEST_SIDE = 1024
"""Pixels of the side to which images are resized where nobody says one."""
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
    median of their short sides when they differ, up to 1024. `digest` covers the relative path, label and bytes of
    every file, and decoded images are kept under it. What files hold is kept by where the folder is and what the file
    system says of them (device, inode, size, times of change, as git does), so that a large set is read once; the same
    bytes elsewhere have the same digest still. `skipped` is what the listing passed over.
    """

    def __init__(
        self,
        root: Path,
        classes: tuple[str, ...],
        listing: Mapping[str, Iterable[Entry]],
        *,
        size: int | None = None,
        channels: int = 1,
        skipped: Findings = NO_FINDINGS,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.name = str(root)
        self.classes = classes
        self._root = root
        self._listing = {split: tuple(listing[split]) for split in SPLITS if listing.get(split)}
        self._size = size
        self._channels = channels
        self._skipped = skipped
        self._on_note = on_note
        self._converted: dict[str, Mapping[str, int]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have files."""
        return tuple(self._listing)

    @property
    def findings(self) -> Findings:
        """What was passed over, and what was converted in the splits that were read."""
        converted = dict.fromkeys(CONVERSIONS, 0)
        for counts in self._converted.values():
            for name, count in counts.items():
                converted[name] += count
        return replace(
            self._skipped, converted={name: count for name, count in converted.items() if count}
        )

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all files, hexadecimal."""
        total = hashlib.sha256()
        files = ((split, entry) for split, entries in self._listing.items() for entry in entries)
        for (split, entry), digest in zip(files, self._scanned["digests"], strict=True):
            total.update(
                os.fsencode(f"{split}\0{self._place(entry)}\0{entry.expression}\0{entry.box}\0")
            )
            total.update(digest)
        return total.hexdigest()

    def read(self, split: str) -> Faces:
        """Decode the images of one of `splits`; raises FertoolError naming a file that cannot be decoded."""
        entries = self._listing[split]
        labels: Indices = np.array(
            [self.classes.index(entry.expression) for entry in entries], np.int64
        )
        side, channels = self._side, self._channels
        shape = (len(entries), channels, side, side)
        conversions = np.zeros((len(entries), len(CONVERSIONS)), np.uint8)
        images = Chunks(shape, lambda: decode(entries, side, channels, conversions))
        stored = cached(
            f"images-v{_CACHE_VERSION}-{self.digest}-{split}-{side}-{channels}",
            # In this order: the conversions are known when the last image is decoded.
            lambda: {"images": images, "conversions": conversions},
            self._on_note,
            lambda arrays: (
                holds(arrays, "images", np.uint8, shape)
                and holds(arrays, "conversions", np.uint8, conversions.shape)
            ),
        )
        self._tell_conversions(split, stored["conversions"])
        return Faces(stored["images"], labels, self.classes)

    def _tell_conversions(self, split: str, conversions: NDArray[np.uint8]) -> None:
        counts = conversions.sum(axis=0, dtype=np.int64).tolist()
        found = {name: count for name, count in zip(CONVERSIONS, counts, strict=True) if count}
        self._converted[split] = found
        if found:
            listed = ", ".join(f"{name} {count}" for name, count in found.items())
            self._on_note(
                f"{self.name}: {split} images that were converted to upright 8-bit sRGB: {listed}"
            )

    @cached_property
    def _entries(self) -> tuple[Entry, ...]:
        return tuple(entry for entries in self._listing.values() for entry in entries)

    def _place(self, entry: Entry) -> str:
        return entry.path.relative_to(self._root).as_posix()

    @cached_property
    def _scanned(self) -> Arrays:
        """SHA-256 uint8 [F, 32] and size (width, height) int32 [F, 2] of the file of each entry, in order."""
        known, newest, now = hashlib.sha256(os.fsencode(self._root.resolve())), 0, time.time_ns()
        for entry in self._entries:
            state = file_state(entry.path)
            identity = (
                state.st_dev,
                state.st_ino,
                state.st_size,
                state.st_mtime_ns,
                state.st_ctime_ns,
            )
            known.update(os.fsencode(f"\0{self._place(entry)}\0{identity}"))
            newest = max(newest, state.st_mtime_ns)
        if newest > now - _SETTLED_NS:
            return _scan(self._entries)
        count = len(self._entries)
        return cached(
            f"files-v{_CACHE_VERSION}-{known.hexdigest()}",
            lambda: _scan(self._entries),
            self._on_note,
            lambda arrays: (
                holds(arrays, "digests", np.uint8, (count, 32))
                and holds(arrays, "sizes", np.int32, (count, 2))
            ),
        )

    @cached_property
    def _side(self) -> int:
        if self._size is not None:
            return self._size
        sizes = self._scanned["sizes"].copy()
        for i, entry in enumerate(self._entries):
            if entry.box:
                sizes[i] = entry.box[2] - entry.box[0], entry.box[3] - entry.box[1]
        side: int = min(statistics.median_low(sizes.min(axis=1).tolist()), _LARGEST_SIDE)
        if (sizes != side).any():
            different = len(np.unique(sizes, axis=0))
            several = f"{different} sizes" if different > 1 else f"{sizes[0][0]}x{sizes[0][1]}"
            self._on_note(f"{self.name}: images of {several}, all resized to {side}x{side}")
        return side


def decode(
    entries: Sequence[Entry], size: int, channels: int, conversions: NDArray[np.uint8] | None = None
) -> Iterator[Pixels]:
    """Decode, crop, convert to gray or RGB and resize: uint8 [<= 256, channels, size, size] each, in order.

    Resizing is bilinear with antialiasing, as in `fertool.data.pixels.resize`. In `conversions` uint8 [entries,
    CONVERSIONS] a 1 is set for each conversion that an image took. Raises FertoolError naming the file.
    """
    at_once = max(1, min(_AT_ONCE, _BYTES_AT_ONCE // (channels * size * size)))
    done = 0
    for batch in _by_threads(lambda entry: _decode(entry, size, channels), entries, at_once):
        if conversions is not None:
            for row, (_, took) in enumerate(batch, start=done):
                conversions[row] = [name in took for name in CONVERSIONS]
        done += len(batch)
        yield np.stack([pixels for pixels, _ in batch])


def image_files(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """Return the image files directly inside a folder, sorted by name; hidden ones and other kinds are left out.

    Those are counted in `others` by suffix.
    """
    images = []
    for path in sorted(folder.iterdir()):
        is_hidden = path.name.startswith(".")
        if path.is_dir():
            continue
        if path.suffix.lower() in image_suffixes() and not is_hidden:
            images.append(path)
        elif others is not None:
            others["hidden" if is_hidden else path.suffix.lower() or "no suffix"] += 1
    return images


def _decode(entry: Entry, size: int, channels: int) -> tuple[Pixels, frozenset[str]]:
    with decoded_image(entry.path) as decoded:
        image = decoded.image
        if image.mode != _MODES[channels]:
            image = image.convert(_MODES[channels])
        if entry.box is not None:
            _require_overlap(entry, image.size)
            image = image.crop(entry.box)
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels: Pixels = np.asarray(image)
    shaped = pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)
    return shaped, decoded.conversions


def _require_overlap(entry: Entry, size: tuple[int, int]) -> None:
    assert entry.box is not None
    left, top, right, bottom = entry.box
    width, height = size
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        raise FertoolError(
            f"{entry.path}: {width}x{height} pixels, but the face box of the list is {left},{top} to {right},{bottom}",
            "the list belongs to other images: copy the data set again",
        )


def _scan(entries: Sequence[Entry]) -> Arrays:
    digests, sizes = np.empty((len(entries), 32), np.uint8), np.empty((len(entries), 2), np.int32)
    found = itertools.chain.from_iterable(
        _by_threads(lambda entry: _scan_file(entry.path), entries, _AT_ONCE)
    )
    for i, (digest, size) in enumerate(found):
        digests[i], sizes[i] = np.frombuffer(digest, np.uint8), size
    return {"digests": digests, "sizes": sizes}


def _scan_file(path: Path) -> tuple[bytes, tuple[int, int]]:
    return scan_image(path)


def _by_threads(
    work: Callable[[Entry], T], entries: Sequence[Entry], at_once: int
) -> Iterator[list[T]]:
    """Yield the results in order, a list for every `at_once` entries."""
    # Decoding and hashing release the interpreter's lock.
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        for start in range(0, len(entries), at_once):
            with warnings.catch_warnings():
                # What Pillow warns of is either handled or an error by its own limits.
                warnings.simplefilter("ignore")
                results = list(pool.map(work, entries[start : start + at_once]))
            yield results
