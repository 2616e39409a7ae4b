"""Synthetic faces as a source."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from fertool.data.cache import has_array, load_or_make
from fertool.data.data_format import DataFormat
from fertool.data.labels import BASIC
from fertool.data.options import DataOptions
from fertool.data.reader import NO_FINDINGS, SPLITS, Findings, Indices, Note, Pixels, RawSplit
from fertool.data.storage import Chunks
from fertool.data.synth import class_indices, draw_in_chunks, split_names
from fertool.errors import UsageError
from fertool.registry import READERS

DEFAULT_COUNT = 4000
MAX_COUNT = 1_000_000
MIN_COUNT = 10 * len(BASIC)
"""Fewer leave a class without an image in validation or test."""
_CACHE_VERSION = 2


@READERS.register("synth")
class SyntheticFaces(DataFormat):
    """Drawn faces: synth, or synth:N for N of them."""

    prefix = "synth"

    def open(self, source: str, options: DataOptions, on_note: Note) -> Synth:
        """Draw the faces."""
        return open_synth(source, options.seed, options.size, on_note)


@dataclass(frozen=True)
class Synth:
    """Synthetic faces as a source: 80 % training, then 10 % validation and 10 % test images."""

    name: str
    digest: str
    images: Pixels
    labels: Indices
    classes: tuple[str, ...] = BASIC
    splits: tuple[str, ...] = SPLITS
    findings: Findings = NO_FINDINGS

    def read(self, split: str) -> RawSplit:
        """Return one split."""
        in_split = np.array(split_names(len(self.labels))) == split
        return RawSplit(self.images, self.labels, self.classes).subset(in_split)


def open_synth(source: str, seed: int, size: int | None, on_note: Note) -> Synth:
    """Draw the faces of `synth` or `synth:COUNT`, or take them from the cache.

    The same seed gives the same faces. Raises UsageError for a bad count.
    """
    count = _parse_count(source)
    side = size or 48
    shape = (count, 1, side, side)
    stored = load_or_make(
        f"synth-v{_CACHE_VERSION}-{count}-{seed}-{side}",
        make=lambda: {"images": Chunks(shape, lambda: draw_in_chunks(count, seed, side))},
        on_note=on_note,
        valid=lambda arrays: has_array(arrays, "images", np.uint8, shape),
    )
    images = stored["images"]
    labels = class_indices(count)
    digest = hashlib.sha256(images.reshape(-1).data)
    digest.update(labels.data)
    return Synth(source, digest.hexdigest(), images, labels)


def _parse_count(source: str) -> int:
    """Return the count of `synth:COUNT`; raises UsageError for one out of bounds."""
    text = source.partition(":")[2] or str(DEFAULT_COUNT)
    # Few digits: Python refuses to convert thousands of them.
    is_number = text.isdecimal() and len(text) <= 9
    if not is_number or not MIN_COUNT <= int(text) <= MAX_COUNT:
        raise UsageError(
            f"``data={source[:40]}``: COUNT must be a number from {MIN_COUNT} to {MAX_COUNT}",
            "for example synth:4000",
        )
    return int(text)
