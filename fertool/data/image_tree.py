"""Image files decoded by parallel threads into the cache; a folder layout only lists the files."""

from __future__ import annotations

import hashlib
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

from fertool.data.cache import Arrays, has_array, load_or_make
from fertool.data.decoding import CONVERSIONS, decoded_image, file_state, image_suffixes, scan_image
from fertool.data.reader import NO_FINDINGS, SPLITS, Findings, Indices, Pixels, RawSplit
from fertool.data.storage import Chunks
from fertool.errors import FertoolError

_MODES = {1: "L", 3: "RGB"}

_CACHE_VERSION = 2
_BATCH_FILES = 256
"""Files in work at once, so that memory stays bounded."""
_BATCH_BYTES = 1 << 26
"""Decoded pixels in work at once; fewer files are in work where images are large."""
_LARGEST_SIDE = 1024
"""Pixels: images are resized to no larger side unless a size is given."""
_SETTLED_NS = 2_000_000_000
"""A file modified later than this before it is read could change again with the same time stamp:
the clocks of file systems are coarse."""

T = TypeVar("T")

Box = tuple[int, int, int, int]
"""Left, top, right, bottom in pixels."""


@dataclass(frozen=True, slots=True)
class ImageEntry:
    """One image file, the name of its class, and the box to crop (None: no crop)."""

    path: Path
    label: str
    box: Box | None = None


class ImageTree:
    """A source made of image files: `listing` has the entries of each split.

    `size` is the side in pixels to which all images are resized; None keeps the common size of the
    files, or takes the median of their short sides when they differ, up to 1024. `digest` covers
    the relative path, label and bytes of every file; decoded images are cached under it. The
    digests of the files are cached by the path of the folder and the status of each file (device,
    inode, size, times of change, as git does), so that a large set is read once. The same bytes
    elsewhere still have the same digest. `name` is the root by default; `skipped` is what the
    listing skipped.
    """

    def __init__(
        self,
        root: Path,
        classes: tuple[str, ...],
        listing: Mapping[str, Iterable[ImageEntry]],
        *,
        size: int | None = None,
        channels: int = 1,
        name: str = "",
        skipped: Findings = NO_FINDINGS,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.name = name or str(root)
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
        """What was skipped, and what was converted in the splits that were read."""
        totals = dict.fromkeys(CONVERSIONS, 0)
        for counts in self._converted.values():
            for name, count in counts.items():
                totals[name] += count
        converted = {name: count for name, count in totals.items() if count}
        return replace(self._skipped, converted=converted)

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all files, hexadecimal."""
        total = hashlib.sha256()
        file_digests = iter(self._scanned["digests"])
        for split, entries in self._listing.items():
            for entry in entries:
                path = self._relative_path(entry)
                identity = f"{split}\0{path}\0{entry.label}\0{entry.box}\0"
                total.update(os.fsencode(identity))
                total.update(next(file_digests))
        return total.hexdigest()

    def read(self, split: str) -> RawSplit:
        """Decode the images of one of `splits`; raises FertoolError naming a damaged file."""
        entries = self._listing[split]
        class_indices = [self.classes.index(entry.label) for entry in entries]
        labels: Indices = np.array(class_indices, np.int64)

        side = self._side
        channels = self._channels
        shape = (len(entries), channels, side, side)
        conversions = np.zeros((len(entries), len(CONVERSIONS)), np.uint8)
        images = Chunks(shape, lambda: decode_images(entries, side, channels, conversions))

        def is_valid(arrays: Arrays) -> bool:
            return has_array(arrays, "images", np.uint8, shape) and has_array(
                arrays, "conversions", np.uint8, conversions.shape
            )

        stored = load_or_make(
            f"images-v{_CACHE_VERSION}-{self.digest}-{split}-{side}-{channels}",
            # In this order: the conversions are known when the last image is decoded.
            make=lambda: {"images": images, "conversions": conversions},
            on_note=self._on_note,
            valid=is_valid,
        )
        self._note_conversions(split, stored["conversions"])
        return RawSplit(stored["images"], labels, self.classes)

    def _note_conversions(self, split: str, conversions: NDArray[np.uint8]) -> None:
        """Count `conversions` [N, CONVERSIONS] of a split in the findings, and note them."""
        counts = conversions.sum(axis=0, dtype=np.int64).tolist()
        found: dict[str, int] = {}
        for name, count in zip(CONVERSIONS, counts, strict=True):
            if count:
                found[name] = count
        self._converted[split] = found
        if found:
            details = ", ".join(f"{name} {count}" for name, count in found.items())
            self._on_note(
                f"{self.name}: {split} images that were converted to upright 8-bit sRGB: {details}"
            )

    @cached_property
    def _entries(self) -> tuple[ImageEntry, ...]:
        entries: list[ImageEntry] = []
        for of_split in self._listing.values():
            entries += of_split
        return tuple(entries)

    def _relative_path(self, entry: ImageEntry) -> str:
        return entry.path.relative_to(self._root).as_posix()

    @cached_property
    def _scanned(self) -> Arrays:
        """SHA-256 uint8 [F, 32] and size (width, height) int32 [F, 2] of the file of each entry."""
        # Before the files are looked at: one that changes meanwhile counts as not settled.
        now = time.time_ns()
        key, newest = self._status_digest()
        if newest > now - _SETTLED_NS:
            return _scan(self._entries)

        count = len(self._entries)

        def is_valid(arrays: Arrays) -> bool:
            return has_array(arrays, "digests", np.uint8, (count, 32)) and has_array(
                arrays, "sizes", np.int32, (count, 2)
            )

        return load_or_make(
            f"files-v{_CACHE_VERSION}-{key}",
            make=lambda: _scan(self._entries),
            on_note=self._on_note,
            valid=is_valid,
        )

    def _status_digest(self) -> tuple[str, int]:
        """Return a digest of the status of all files, and the newest time of modification in ns."""
        digest = hashlib.sha256(os.fsencode(self._root.resolve()))
        newest = 0
        for entry in self._entries:
            state = file_state(entry.path)
            identity = (
                state.st_dev,
                state.st_ino,
                state.st_size,
                state.st_mtime_ns,
                state.st_ctime_ns,
            )
            digest.update(os.fsencode(f"\0{self._relative_path(entry)}\0{identity}"))
            newest = max(newest, state.st_mtime_ns)
        return digest.hexdigest(), newest

    @cached_property
    def _side(self) -> int:
        """The side of all images after resizing, in pixels: see `size` in the class."""
        if self._size is not None:
            return self._size
        sizes = self._scanned["sizes"].copy()
        # Of an image with a face box only the box is used.
        for i, entry in enumerate(self._entries):
            if entry.box:
                left, top, right, bottom = entry.box
                sizes[i] = right - left, bottom - top
        side: int = min(statistics.median_low(sizes.min(axis=1).tolist()), _LARGEST_SIDE)
        if (sizes != side).any():
            self._note_resizing(sizes, side)
        return side

    def _note_resizing(self, sizes: NDArray[np.int32], side: int) -> None:
        """Note the size of the images, or the number of sizes where they differ."""
        different = len(np.unique(sizes, axis=0))
        if different > 1:
            described = f"{different} sizes"
        else:
            width, height = sizes[0]
            described = f"{width}x{height}"
        self._on_note(f"{self.name}: images of {described}, all resized to {side}x{side}")


def decode_images(
    entries: Sequence[ImageEntry],
    size: int,
    channels: int,
    conversions: NDArray[np.uint8] | None = None,
) -> Iterator[Pixels]:
    """Decode, crop, convert to gray or RGB and resize: uint8 [<= 256, channels, size, size] each.

    The images come in order. Resizing is bilinear with antialiasing, as in
    `fertool.data.pixels.resize`. In `conversions` uint8 [entries, CONVERSIONS] a 1 is set for each
    conversion of an image. Raises FertoolError naming the file.
    """
    image_bytes = channels * size * size
    batch_size = max(1, min(_BATCH_FILES, _BATCH_BYTES // image_bytes))

    def decode(entry: ImageEntry) -> tuple[Pixels, frozenset[str]]:
        return _decode(entry, size, channels)

    # Yielded in batches: all images together may be larger than memory.
    done = 0
    for batch in _in_threads(decode, entries, batch_size):
        if conversions is not None:
            _mark_conversions(conversions[done:], batch)
        done += len(batch)
        yield np.stack([pixels for pixels, _ in batch])


def _mark_conversions(
    conversions: NDArray[np.uint8], decoded: list[tuple[Pixels, frozenset[str]]]
) -> None:
    """Set a 1 in the rows of decoded images for each conversion that was applied."""
    for row, (_, applied) in enumerate(decoded):
        conversions[row] = [name in applied for name in CONVERSIONS]


def image_files(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """Return the image files directly inside a folder, sorted by name, without hidden ones.

    Hidden files and those of other kinds are counted in `others` by suffix.
    """
    suffixes = image_suffixes()
    images: list[Path] = []
    # Sorted, for the order of images decides the digest of the data set and every random draw.
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        kind = _kind_of_file(path)
        if kind in suffixes:
            images.append(path)
        elif others is not None:
            others[kind] += 1
    return images


def _kind_of_file(path: Path) -> str:
    """Return the suffix of a file in lower case, or `hidden` or `no suffix`."""
    if path.name.startswith("."):
        return "hidden"
    return path.suffix.lower() or "no suffix"


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


def _scan(entries: Sequence[ImageEntry]) -> Arrays:
    """Return the SHA-256 `digests` and the `sizes` of the files, see `ImageTree._scanned`."""
    digests = np.empty((len(entries), 32), np.uint8)
    sizes = np.empty((len(entries), 2), np.int32)
    row = 0
    for batch in _in_threads(_scan_file, entries, _BATCH_FILES):
        for digest, size in batch:
            digests[row] = np.frombuffer(digest, np.uint8)
            sizes[row] = size
            row += 1
    return {"digests": digests, "sizes": sizes}


def _scan_file(entry: ImageEntry) -> tuple[bytes, tuple[int, int]]:
    return scan_image(entry.path)


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
