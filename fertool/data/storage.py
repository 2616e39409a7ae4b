"""Images that may be larger than memory: worked on in pieces, held in files, mapped where they are read."""

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
"""Bytes up to which images that were made from others are held in memory."""
PIECE = 1 << 23
"""Bytes of images that are worked on at once."""


@dataclass(frozen=True)
class Chunks:
    """Images uint8 of this `shape` [N, ...], in pieces that `parts` makes in order, anew at each call."""

    shape: tuple[int, ...]
    parts: Callable[[], Iterable[NDArray[np.uint8]]]


def cache_folder() -> Path:
    """Return $FERTOOL_CACHE, else `fertool` under $XDG_CACHE_HOME or ~/.cache; it need not exist.

    Raises OSError where there is no home folder and no variable that names another.
    """
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


def pieces(images: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in order, as many at once as `PIECE` holds."""
    return (images[rows] for rows in _runs(images, len(images)))


def take(images: NDArray[np.uint8], index: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the images at these positions: a run without gaps is not copied, others go where `assemble` puts them."""
    first = int(index[0]) if len(index) else 0
    if first >= 0 and np.array_equal(index, np.arange(first, first + len(index))):
        return images[first : first + len(index)]
    shape = (len(index), *images.shape[1:])
    return assemble(
        Chunks(shape, lambda: (images[index[rows]] for rows in _runs(images, len(index))))
    )


def _runs(images: NDArray[np.uint8], count: int) -> Iterator[slice]:
    """Yield the slices of `count` positions that are worked on at once, by the size of an image."""
    rows = max(1, PIECE // max(1, images[:1].size))
    return (slice(start, start + rows) for start in range(0, count, rows))


def assemble(chunks: Chunks) -> NDArray[np.uint8]:
    """Return the whole: in memory up to `IN_MEMORY` bytes, else mapped from a nameless file in the cache folder.

    Where that file cannot be written all is held in memory.
    """
    if np.prod(chunks.shape, dtype=np.int64) > IN_MEMORY:
        with contextlib.suppress(OSError):
            cache_folder().mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=cache_folder()) as file:
                for part in chunks.parts():
                    file.write(np.ascontiguousarray(part).data)
                file.flush()
                return mapped(file, 0, chunks.shape)
    whole, start = np.empty(chunks.shape, np.uint8), 0
    for part in chunks.parts():
        whole[start : start + len(part)] = part
        start += len(part)
    return whole


def mapped(file: BinaryIO, offset: int, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Map bytes of an open file as an array; it is read-only, and the system may take its memory back at any time."""
    return np.asarray(np.memmap(file, np.uint8, "r", offset, shape))
