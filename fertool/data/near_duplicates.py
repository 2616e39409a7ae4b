"""Near duplicates: the same picture resized, recompressed or brightened, by a perceptual hash."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from fertool.data.pixels import as_tensor, convert_channels, resize
from fertool.data.reader import Indices, Pixels
from fertool.data.storage import iter_chunks

_SIDE = 32
"""Pixels of the side of the image that is hashed."""
_FREQUENCIES = 8
"""Along each axis; 8 x 8 without the mean are 63 bits."""
_MOST_DIFFERENT_BITS = 7
_BANDS = 8
"""Of 8 bits: two hashes that differ in fewer bits than there are bands have one in common."""
_LEAST_CORRELATION = 0.95
"""Of two images of 16 x 16 pixels: faces in the same pose may have similar hashes, but not this.
Among 7,883 images of FER2013 133 pairs have both; all 60 that were looked at are the same photo."""
_THUMBNAIL = 16
_MOST_PAIRS_AT_ONCE = 1 << 20

Hashes = NDArray[np.uint64]


def perceptual_hashes(images: Pixels) -> tuple[Hashes, NDArray[np.float32]]:
    """Return hashes uint64 [N] and thumbnails float32 [N, 256] of images [N, C, H, W].

    A bit of the hash says whether one of the 63 lowest frequencies of the discrete cosine transform
    of 32 x 32 pixels is above their median (pHash: Zauner, Implementation and Benchmarking of
    Perceptual Image Hash Functions, 2010, section 3.2.1). Thumbnails have mean 0 and length 1.
    """
    # Not an empty list, which `np.concatenate` refuses where there are no images.
    hashes = [np.empty(0, np.uint64)]
    thumbnails = [np.empty((0, _THUMBNAIL**2), np.float32)]
    for chunk in iter_chunks(images):
        small = resize(convert_channels(as_tensor(chunk), 1), _SIDE)
        hashes.append(_hashes_of(small[:, 0].numpy().astype(np.float32)))
        thumbnails.append(_thumbnails_of(small))
    return np.concatenate(hashes), np.concatenate(thumbnails)


def near_duplicate_pairs(hashes: Hashes, thumbnails: NDArray[np.float32]) -> Indices:
    """Return the pairs of near duplicates among distinct images, int64 [P, 2], the smaller first.

    At most 7 bits of their hashes differ, and their thumbnails correlate by 0.95 or more.
    """
    found = [np.empty((0, 2), np.int64)]
    for pairs in _candidates(hashes):
        differences = np.bitwise_count(hashes[pairs[:, 0]] ^ hashes[pairs[:, 1]])
        pairs = pairs[differences <= _MOST_DIFFERENT_BITS]
        first, second = thumbnails[pairs[:, 0]], thumbnails[pairs[:, 1]]
        # Rows have mean 0 and length 1, so that their inner product is the correlation.
        correlation = np.einsum("ij,ij->i", first, second)
        found.append(pairs[correlation >= _LEAST_CORRELATION])
    # A pair may have several bands in common.
    return np.unique(np.concatenate(found), axis=0)


def _hashes_of(pixels: NDArray[np.float32]) -> Hashes:
    """Return the hashes of gray images [N, 32, 32]."""
    positions = (np.arange(_SIDE) + 0.5) * (math.pi / _SIDE)
    cosines = np.cos(np.arange(_FREQUENCIES)[:, None] * positions).astype(np.float32)
    spectra = cosines @ pixels @ cosines.T
    # Without the first, the mean, which says how bright the image is.
    low = spectra.reshape(len(pixels), _FREQUENCIES**2)[:, 1:]
    bits = low > np.median(low, axis=1, keepdims=True)
    # 63 bits do not fill a machine word; a constant last bit adds nothing to a distance.
    padded = np.pad(bits, ((0, 0), (0, 1)))
    hashes: Hashes = np.packbits(padded, axis=1).view(np.uint64)[:, 0]
    return hashes


def _thumbnails_of(small: torch.Tensor) -> NDArray[np.float32]:
    rows = resize(small, _THUMBNAIL).reshape(len(small), _THUMBNAIL**2).numpy().astype(np.float32)
    rows -= rows.mean(axis=1, keepdims=True)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    # An image of one gray level is like no other.
    thumbnails: NDArray[np.float32] = rows / np.maximum(lengths, 1e-6)
    return thumbnails


def _candidates(hashes: Hashes) -> Iterator[Indices]:
    """Yield pairs int64 [P, 2] of hashes that have a band of bits in common, the smaller first."""
    band_bits = 64 // _BANDS
    for band in range(_BANDS):
        values = (hashes >> np.uint64(band * band_bits)) & np.uint64((1 << band_bits) - 1)
        order = np.argsort(values, kind="stable")
        starts = np.flatnonzero(np.diff(values[order], prepend=values[order[:1]] + 1))
        for members in np.split(order, starts[1:]):
            yield from _pairs_of(members)


def _pairs_of(members: Indices) -> Iterator[Indices]:
    """Yield all pairs of sorted indices, in blocks."""
    # Many like images share a band, and their pairs grow with the square of their number.
    rows = max(1, _MOST_PAIRS_AT_ONCE // max(1, len(members)))
    for start in range(0, len(members), rows):
        first, second = np.triu_indices(
            n=min(rows, len(members) - start), k=1, m=len(members) - start
        )
        yield np.stack([members[start + first], members[start + second]], axis=1)
