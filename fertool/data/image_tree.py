"""A source of image files: digest, cache and findings; a folder layout only lists the files."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fertool.data.cache import Arrays, has_array, load_or_make
from fertool.data.decoding import CONVERSIONS, decoded_image, file_state, scan_image
from fertool.data.image_batches import DecodingMarks, ImageEntry, decode_images, scan_images
from fertool.data.reader import NO_FINDINGS, SPLITS, Findings, Indices, RawSplit
from fertool.data.storage import Chunks
from fertool.errors import FertoolError

_CACHE_VERSION = 2
_LARGEST_SIDE = 1024
"""Pixels: images are resized to no larger side unless a size is given."""
_SETTLED_NS = 2_000_000_000
"""A file modified later than this before it is read could change again with the same time stamp:
the clocks of file systems are coarse."""
_NAMED = 5
"""Unreadable files that a note names."""


@dataclass(frozen=True)
class _Files:
    """The files that are read, in the order of the splits, with SHA-256 and (width, height)."""

    entries: Sequence[tuple[str, ImageEntry]]
    digests: NDArray[np.uint8]
    sizes: NDArray[np.int32]

    def rows(self, split: str) -> Indices:
        return np.array([k for k, (name, _) in enumerate(self.entries) if name == split], np.int64)


class ImageTree:
    """A source made of image files: `listing` has the entries of each split.

    `size` is the side in pixels to which all images are resized; None keeps the common size of the
    files, or takes the median of their short sides when they differ, up to 1024. With `keep_size`
    squares that all have one size keep it, whatever `size` is. `digest` covers the relative path,
    label and bytes of every file; decoded images are cached under it. The digests of the files are
    cached by the path of the folder and the status of each file (device, inode, size, times of
    change, as git does), so that a large set is read once. The same bytes elsewhere still have the
    same digest. `name` is the root by default; `skipped` is what the listing skipped. With
    `skip_unreadable` files that cannot be read are left out, noted and reported in `findings`.
    """

    def __init__(
        self,
        root: Path,
        classes: tuple[str, ...],
        listing: Mapping[str, Iterable[ImageEntry]],
        *,
        size: int | None = None,
        keep_size: bool = False,
        channels: int = 1,
        name: str = "",
        skipped: Findings = NO_FINDINGS,
        skip_unreadable: bool = False,
        on_note: Callable[[str], None] = lambda note: None,
    ) -> None:
        self.name = name or str(root)
        self.classes = classes
        self._root = root
        self._listing = {split: tuple(listing[split]) for split in SPLITS if listing.get(split)}
        self._size = size
        self._keep_size = keep_size
        self._channels = channels
        self._skipped = skipped
        self._skip_unreadable = skip_unreadable
        self._on_note = on_note
        self._converted: dict[str, Mapping[str, int]] = {}
        self._unreadable: dict[str, str] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have files."""
        return tuple(self._listing)

    @property
    def findings(self) -> Findings:
        """What was skipped, and what was converted or unreadable in the splits that were read."""
        totals = dict.fromkeys(CONVERSIONS, 0)
        for counts in self._converted.values():
            for name, count in counts.items():
                totals[name] += count
        converted = {name: count for name, count in totals.items() if count}
        return replace(self._skipped, converted=converted, unreadable=dict(self._unreadable))

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all files that are read, hexadecimal."""
        total = hashlib.sha256()
        for (split, entry), digest in zip(self._files.entries, self._files.digests, strict=True):
            path = self._relative_path(entry)
            identity = f"{split}\0{path}\0{entry.label}\0{entry.box}\0"
            total.update(os.fsencode(identity))
            total.update(digest.tobytes())
        return total.hexdigest()

    def read(self, split: str) -> RawSplit:
        """Decode the images of one of `splits`; raises FertoolError naming a damaged file."""
        rows = self._files.rows(split)
        entries = [self._files.entries[row][1] for row in rows]
        side = self._side
        channels = self._channels
        shape = (len(entries), channels, side, side)
        marks = DecodingMarks.empty(len(entries))
        images = Chunks(
            shape,
            lambda: decode_images(
                entries, side, channels, marks, skip_unreadable=self._skip_unreadable
            ),
        )

        def is_valid(arrays: Arrays) -> bool:
            unreadable = arrays.get("unreadable", marks.unreadable)
            return (
                has_array(arrays, "images", np.uint8, shape)
                and has_array(arrays, "conversions", np.uint8, marks.conversions.shape)
                and has_array({"it": unreadable}, "it", np.uint8, marks.unreadable.shape)
            )

        stored = load_or_make(
            f"images-v{_CACHE_VERSION}-{self.digest}-{split}-{side}-{channels}",
            # In this order: the marks are known when the last image is decoded.
            make=lambda: {
                "images": images,
                "conversions": marks.conversions,
                "unreadable": marks.unreadable,
            },
            on_note=self._on_note,
            valid=is_valid,
        )
        self._note_conversions(split, stored["conversions"])
        class_indices = [self.classes.index(entry.label) for entry in entries]
        found = RawSplit(
            stored["images"],
            np.array(class_indices, np.int64),
            self.classes,
            names=np.array([self._relative_path(entry) for entry in entries], object),
            file_sizes=self._sizes[rows],
        )
        # Caches of older versions have none: all their images were readable.
        unreadable = stored.get("unreadable", marks.unreadable)
        return self._without_unreadable(split, found, entries, unreadable)

    def _without_unreadable(
        self,
        split: str,
        found: RawSplit,
        entries: Sequence[ImageEntry],
        unreadable: NDArray[np.uint8],
    ) -> RawSplit:
        """Return the images that could be decoded; notes the others, or raises the first error."""
        for row in np.flatnonzero(unreadable).tolist():
            self._require_readable(entries[row], _require_decodable)
        self._note_unreadable(split)
        return found.subset(unreadable == 0) if unreadable.any() else found

    def _require_readable(self, entry: ImageEntry, check: Callable[[Path], object]) -> bool:
        """Return whether a file passes a check; the reason why not is kept, or raised."""
        try:
            check(entry.path)
        except FertoolError as error:
            if not self._skip_unreadable:
                raise
            reason = error.message.removeprefix(f"{entry.path}: ")
            self._unreadable[self._relative_path(entry)] = reason
            return False
        return True

    def _note_unreadable(self, split: str) -> None:
        of_split = {self._relative_path(entry) for entry in self._listing[split]}
        reasons = [f"{name} ({why})" for name, why in self._unreadable.items() if name in of_split]
        if not reasons:
            return
        named = ", ".join(reasons[:_NAMED])
        if len(reasons) > _NAMED:
            named += f" and {len(reasons) - _NAMED:,} more, which data info lists"
        self._on_note(f"{self.name}: {len(reasons):,} unreadable {split} images skipped: {named}")

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

    def _relative_path(self, entry: ImageEntry) -> str:
        return entry.path.relative_to(self._root).as_posix()

    @cached_property
    def _files(self) -> _Files:
        listed: list[tuple[str, ImageEntry]] = []
        for split, of_split in self._listing.items():
            for entry in of_split:
                if not self._skip_unreadable or self._require_readable(entry, file_state):
                    listed.append((split, entry))
        scanned = self._scan([entry for _, entry in listed])
        is_image = scanned["sizes"].min(axis=1, initial=1) > 0
        for row in np.flatnonzero(~is_image):
            self._require_readable(listed[row][1], scan_image)
        if not is_image.any():
            first = next(iter(self._unreadable.items()), ("", "there is none"))
            raise FertoolError(
                f"{self.name}: none of its images can be read: {': '.join(first)}",
                "look at what the files are",
            )
        readable = [listed[row] for row in np.flatnonzero(is_image)]
        return _Files(readable, scanned["digests"][is_image], scanned["sizes"][is_image])

    def _scan(self, entries: Sequence[ImageEntry]) -> Arrays:
        """Return digests and sizes as `scan_images` does, from the cache where nothing changed."""
        # Before the files are looked at: one that changes meanwhile counts as not settled.
        now = time.time_ns()
        key, newest = self._status_digest(entries)

        def scan() -> Arrays:
            return scan_images(entries, skip_unreadable=self._skip_unreadable)

        if newest > now - _SETTLED_NS:
            return scan()
        count = len(entries)

        def is_valid(arrays: Arrays) -> bool:
            return has_array(arrays, "digests", np.uint8, (count, 32)) and has_array(
                arrays, "sizes", np.int32, (count, 2)
            )

        return load_or_make(
            f"files-v{_CACHE_VERSION}-{key}", make=scan, on_note=self._on_note, valid=is_valid
        )

    def _status_digest(self, entries: Sequence[ImageEntry]) -> tuple[str, int]:
        """Return a digest of the status of all files, and the newest time of modification in ns."""
        digest = hashlib.sha256(os.fsencode(self._root.resolve()))
        newest = 0
        for entry in entries:
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
    def _sizes(self) -> NDArray[np.int32]:
        """The (width, height) of what is used of each file in pixels: of a box only the box."""
        sizes = self._files.sizes.copy()
        for i, (_, entry) in enumerate(self._files.entries):
            if entry.box:
                left, top, right, bottom = entry.box
                sizes[i] = right - left, bottom - top
        return sizes

    @cached_property
    def _side(self) -> int:
        """The side of all images after resizing, in pixels: see `size` in the class."""
        if self._size is not None and not self._keep_size:
            return self._size
        sizes = self._sizes
        if self._size is not None:
            first = int(sizes.flat[0])
            is_common = bool((sizes == first).all()) and first <= _LARGEST_SIDE
            return first if is_common else self._size
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


def _require_decodable(path: Path) -> None:
    """Raise FertoolError for an image file that cannot be decoded."""
    with decoded_image(path):
        pass
