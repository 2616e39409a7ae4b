"""Image arrays that may be larger than memory: made in chunks, kept in files and mapped."""

from __future__ import annotations

import contextlib
import errno
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

IN_MEMORY = 1 << 28
"""Bytes: derived arrays of images up to this size are held in memory, larger ones in a file."""
PIECE = 1 << 23
"""Bytes of images that are processed at once."""


@dataclass(frozen=True)
class Chunks:
    """Images uint8 of this `shape` [N, ...], which each call of `parts` makes anew in chunks."""

    shape: tuple[int, ...]
    parts: Callable[[], Iterable[NDArray[np.uint8]]]


def cache_folder() -> Path:
    """Return $FERTOOL_CACHE, else `fertool` under $XDG_CACHE_HOME or ~/.cache; it need not exist.

    Raises OSError where there is no home folder and neither variable is set.
    """
    # Read at each call, so that tests and notebooks can change it.
    if own := os.environ.get("FERTOOL_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "fertool"
    try:
        return Path.home() / ".cache" / "fertool"
    except RuntimeError:
        raise OSError(
            errno.ENOENT, "there is no home folder; FERTOOL_CACHE can name another"
        ) from None


def iter_chunks(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in order, `PIECE` bytes at a time."""
    for rows in _row_slices(images, count=len(images)):
        yield images[rows]


def select_images(images: NDArray[np.uint8], index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the images at these positions.

    Consecutive positions give a view without a copy; others are copied as `assemble` does.
    """
    first = int(index[0]) if len(index) else 0
    is_consecutive = np.array_equal(index, np.arange(first, first + len(index)))
    # A negative position counts from the end, so that a slice from it could wrap around.
    if first >= 0 and is_consecutive:
        return images[first : first + len(index)]

    def selected() -> Iterator[NDArray[np.uint8]]:
        for rows in _row_slices(images, count=len(index)):
            yield images[index[rows]]

    return assemble(Chunks(shape=(len(index), *images.shape[1:]), parts=selected))


def _row_slices(images: NDArray[np.uint8], count: int) -> Iterator[slice]:
    """Yield slices of `count` positions, each of about `PIECE` bytes of images."""
    image_bytes = max(1, images[:1].size)
    rows = max(1, PIECE // image_bytes)
    for start in range(0, count, rows):
        yield slice(start, start + rows)


def assemble(chunks: Chunks) -> NDArray[np.uint8]:
    """Return all chunks as one array, in memory up to `IN_MEMORY` bytes.

    A larger one is mapped from an unnamed file in the cache folder, or held in memory where that
    file cannot be written.
    """
    if np.prod(chunks.shape, dtype=np.int64) > IN_MEMORY:
        # A full or read-only disk is no reason to fail as long as memory may do.
        with contextlib.suppress(OSError):
            return _assemble_in_file(chunks)

    whole = np.empty(chunks.shape, np.uint8)
    start = 0
    for part in chunks.parts():
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def _assemble_in_file(chunks: Chunks) -> NDArray[np.uint8]:
    """Write the chunks to an unnamed file in the cache folder and map it.

    Raises OSError when it cannot be written.
    """
    cache_folder().mkdir(parents=True, exist_ok=True)
    # The mapping keeps the content after the file is closed, and with it removed.
    with tempfile.TemporaryFile(dir=cache_folder()) as file:
        for part in chunks.parts():
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        return map_array(file, offset=0, shape=chunks.shape)


def map_array(file: BinaryIO, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map bytes of an open file as a read-only array, whose memory the system may reclaim."""
    return np.asarray(np.memmap(file, np.uint8, "r", offset, shape))
