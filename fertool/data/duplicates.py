"""Exact duplicates of images, found by hashing their pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from fertool.data.reader import SPLITS, Indices, Pixels, RawSplit

Mask = NDArray[np.bool_]


def image_hashes(images: Pixels) -> list[bytes]:
    """Return a hash of each image [N, C, H, W], equal for duplicates only (128 bits of BLAKE2b)."""
    rows = np.ascontiguousarray(images).reshape(len(images), math.prod(images.shape[1:]))
    return [hashlib.blake2b(row.data, digest_size=16).digest() for row in rows]


def distinct_from(images: Pixels, others: Pixels) -> Mask:
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


def hold_out(faces: RawSplit, fractions: Mapping[str, float], seed: int) -> dict[str, Mask]:
    """Choose about a fraction of the images of each class for each split, bool [N] by split.

    Later fractions are of what earlier splits left. Duplicates of one image stay on one side. The
    choice depends on the images and this seed alone, which is not that of a training: runs with
    different seeds must not mix up the parts.
    """
    # By groups of duplicates: an image on both sides would be validated on what was trained.
    group = group_indices(image_hashes(faces.images))
    _, first = np.unique(group, return_index=True)
    labels = faces.labels[first]
    is_free = np.ones(len(first), bool)
    masks: dict[str, Mask] = {}
    for split, fraction in fractions.items():
        chosen = np.zeros(len(first), bool)
        for k in range(len(faces.classes)):
            members = np.flatnonzero((labels == k) & is_free)
            # One image where the fraction rounds to none, as long as another remains for training.
            count = round(fraction * len(members)) or min(1, len(members) // 2)
            generator = _generator(seed, split, k)
            chosen[generator.permutation(members)[:count]] = True
        is_free &= ~chosen
        masks[split] = chosen[group]
    return masks


def _generator(seed: int, split: str, class_index: int) -> np.random.Generator:
    # The first validation split is that of older versions, whose models were chosen on it.
    if seed == 0 and split == "val":
        return np.random.default_rng(class_index)
    return np.random.default_rng([seed, SPLITS.index(split), class_index])
