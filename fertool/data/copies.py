"""Exact copies of images, found by hashing their pixels."""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from fertool.data.faces import Faces, Indices, Pixels


def image_ids(images: Pixels) -> list[bytes]:
    """Return one value per image [N, C, H, W], equal for exact copies only (128 bits of BLAKE2b)."""
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def distinct_from(images: Pixels, others: Pixels) -> NDArray[np.bool_]:
    """Say which `images` [N, C, H, W] are not exact copies of one among `others` [M, C, H, W]: bool [N]."""
    known = set(image_ids(others))
    return np.array([one not in known for one in image_ids(images)], np.bool_)


def numbered(ids: list[bytes]) -> Indices:
    """Return ids as numbers int64 [N], counted from 0 in the order in which they first appear."""
    seen: dict[bytes, int] = {}
    return np.array([seen.setdefault(one, len(seen)) for one in ids], np.int64)


def hold_out(faces: Faces, share: float) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Choose about `share` of the images of each class, bool [N]; copies of one image stay on one side.

    The choice follows from the images alone, without a seed: steps with different seeds must not mix up the two parts.
    """
    group = numbered(image_ids(faces.images))
    _, first = np.unique(group, return_index=True)
    chosen = np.zeros(len(first), bool)
    for k in range(len(faces.classes)):
        members = np.flatnonzero(faces.labels[first] == k)
        count = round(share * len(members)) or min(1, len(members) // 2)
        chosen[np.random.default_rng(k).permutation(members)[:count]] = True
    return chosen[group]
