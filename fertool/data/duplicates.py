"""Exact duplicates of images, found by hashing their pixels."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from fertool.data.reader import Indices, Pixels, RawSplit


def image_hashes(images: Pixels) -> list[bytes]:
    """Return a hash of each image [N, C, H, W], equal for duplicates only (128 bits of BLAKE2b)."""
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def distinct_from(images: Pixels, others: Pixels) -> NDArray[np.bool_]:
    """Return bool [N]: which `images` [N, C, H, W] are not duplicates of one in `others`."""
    known = set(image_hashes(others))
    return np.array([image not in known for image in image_hashes(images)], np.bool_)


def group_indices(hashes: list[bytes]) -> Indices:
    """Return hashes as numbers int64 [N], from 0 in the order in which they first appear."""
    number_of: dict[bytes, int] = {}
    numbers = np.empty(len(hashes), np.int64)
    for i, value in enumerate(hashes):
        numbers[i] = number_of.setdefault(value, len(number_of))
    return numbers


def hold_out(faces: RawSplit, fraction: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Choose about `fraction` of the images of each class, bool [N].

    Duplicates of one image stay on one side. The choice depends on the images alone, not on a seed:
    runs with different seeds must not mix up the two parts.
    """
    # By groups of duplicates: an image on both sides would be validated on what was trained.
    group = group_indices(image_hashes(faces.images))
    _, first = np.unique(group, return_index=True)
    chosen = np.zeros(len(first), bool)
    for k in range(len(faces.classes)):
        members = np.flatnonzero(faces.labels[first] == k)
        # One image where the fraction rounds to none, as long as another remains for training.
        count = round(fraction * len(members)) or min(1, len(members) // 2)
        chosen[np.random.default_rng(k).permutation(members)[:count]] = True
    return chosen[group]
