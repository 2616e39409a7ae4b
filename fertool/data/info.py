"""What a source holds, and what in it can mislead: copies, contradicting labels, empty images, what is not a face."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from fertool.data.copies import image_ids, numbered
from fertool.data.faces import Faces, Pixels
from fertool.data.ferplus import RULES, label_by_votes
from fertool.data.source import DataSource
from fertool.data.storage import pieces

_NOT_A_FACE = 9
_MANY_VOTES = 5


@dataclass(frozen=True)
class DataInfo:
    """Counts over all images of a source, before any is dropped for its label.

    `counts`: images of each class in each split, as `DataSource.split` gives them. `images`, `distinct_images`: with
    and without exact copies. `copy_groups`: images that occur more than once. `copies_across`: by "val in train" and
    the like, the images of the first split that are copies of one in the second. `conflicting_groups`: copies under
    different labels. `constant_images`: of one grey level. `not_faces`: images with more than five of ten "not a face"
    votes, and `ferplus_rule_counts` the images that each rule keeps of each split; None without FER+ votes.
    `converted`: images by what was done to make them upright 8-bit sRGB (an image may count more than once).
    `not_images`: files passed over, by suffix. `left_out`: images that no split or class takes, by folder.
    """

    source: str
    digest: str
    classes: tuple[str, ...]
    image_size: int
    channels: int
    counts: Mapping[str, Mapping[str, int]]
    images: int
    distinct_images: int
    copy_groups: int
    copies_across: Mapping[str, int]
    conflicting_groups: int
    constant_images: int
    not_faces: int | None
    ferplus_rule_counts: Mapping[str, Mapping[str, int]] | None
    converted: Mapping[str, int]
    not_images: Mapping[str, int]
    left_out: Mapping[str, int]


def inspect(source: DataSource) -> DataInfo:
    """Count what a source holds; reads all its splits. Raises FertoolError as reading them does."""
    parts = {split: source.raw(split) for split in source.splits}
    ids = {split: image_ids(faces.images) for split, faces in parts.items()}
    group = numbered([one for split in parts for one in ids[split]])
    sizes = np.bincount(group)
    labels = np.concatenate([faces.labels for faces in parts.values()])
    labels_met = np.bincount(np.unique(np.stack([group, labels]), axis=1)[0])
    voted = {split: faces for split, faces in parts.items() if faces.votes is not None}
    first = next(iter(parts.values()))
    findings = source.findings
    return DataInfo(
        source=source.name,
        digest=source.digest,
        classes=source.classes,
        image_size=first.images.shape[-1],
        channels=first.images.shape[1],
        counts={split: _class_counts(source, split) for split in parts},
        images=len(group),
        distinct_images=len(sizes),
        copy_groups=int(np.count_nonzero(sizes > 1)),
        copies_across=_copies_across(ids),
        conflicting_groups=int(np.count_nonzero(labels_met > 1)),
        constant_images=sum(_constant(faces.images) for faces in parts.values()),
        not_faces=_not_faces(parts) if voted else None,
        ferplus_rule_counts=_rule_counts(voted) if voted else None,
        converted=findings.converted,
        not_images=findings.not_images,
        left_out=findings.left_out,
    )


def _constant(images: Pixels) -> int:
    flat = (piece.reshape(len(piece), math.prod(piece.shape[1:])) for piece in pieces(images))
    return sum(int(np.count_nonzero((rows == rows[:, :1]).all(axis=1))) for rows in flat)


def _class_counts(source: DataSource, split: str) -> dict[str, int]:
    faces = source.labelled(split)
    counts = np.bincount(faces.labels, minlength=len(faces.classes)).tolist()
    by_name = dict(zip(faces.classes, counts, strict=True))
    return {name: by_name.get(name, 0) for name in source.classes}


def _copies_across(ids: Mapping[str, list[bytes]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    splits = list(ids)
    for k, other in enumerate(splits):
        known = set(ids[other])
        for split in splits[k + 1 :]:
            counts[f"{split} in {other}"] = sum(one in known for one in ids[split])
    return counts


def _not_faces(parts: Mapping[str, Faces]) -> int:
    votes = (faces.votes for faces in parts.values() if faces.votes is not None)
    return sum(int(np.count_nonzero(each[:, _NOT_A_FACE] > _MANY_VOTES)) for each in votes)


def _rule_counts(parts: Mapping[str, Faces]) -> dict[str, dict[str, int]]:
    return {
        rule: {split: len(label_by_votes(faces, rule)) for split, faces in parts.items()}
        for rule in RULES
    }
