"""Count what a source holds, and what in it can mislead: duplicates, conflicts of labels."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from fertool.data.duplicates import group_indices, image_hashes
from fertool.data.ferplus import RULES, label_by_votes
from fertool.data.reader import Pixels, RawSplit
from fertool.data.source import DataSource
from fertool.data.storage import iter_chunks
from fertool.results import DataInfo

_NOT_A_FACE = 9
"""Column of the votes for "not a face"."""
_MANY_VOTES = 5


def inspect_source(source: DataSource) -> DataInfo:
    """Count what a source holds; reads all its splits. Raises FertoolError as reading them does."""
    splits = {split: source.raw(split) for split in source.splits}
    hashes: dict[str, list[bytes]] = {}
    all_hashes: list[bytes] = []
    voted: dict[str, RawSplit] = {}
    for split, faces in splits.items():
        hashes[split] = image_hashes(faces.images)
        all_hashes += hashes[split]
        if faces.votes is not None:
            voted[split] = faces
    group = group_indices(all_hashes)
    group_sizes = np.bincount(group)
    labels = np.concatenate([faces.labels for faces in splits.values()])
    labels_of_group = np.bincount(np.unique(np.stack([group, labels]), axis=1)[0])

    _, channels, _, image_size = next(iter(splits.values())).images.shape
    # After the splits are read: the readers find some of it only then.
    findings = source.findings
    return DataInfo(
        source=source.name,
        digest=source.digest,
        classes=source.classes,
        image_size=image_size,
        channels=channels,
        counts={split: _class_counts(source, split) for split in splits},
        images=len(group),
        distinct_images=len(group_sizes),
        copy_groups=int(np.count_nonzero(group_sizes > 1)),
        copies_across=_duplicates_across(hashes),
        conflicting_groups=int(np.count_nonzero(labels_of_group > 1)),
        constant_images=sum(_count_constant(faces.images) for faces in splits.values()),
        not_faces=_count_not_faces(voted),
        ferplus_rule_counts=_rule_counts(voted),
        converted=findings.converted,
        not_images=findings.not_images,
        left_out=findings.left_out,
    )


def _count_constant(images: Pixels) -> int:
    """Return how many images [N, C, H, W] have one gray level only.

    In chunks, for the images may be larger than memory.
    """
    count = 0
    for chunk in iter_chunks(images):
        rows = chunk.reshape(len(chunk), math.prod(chunk.shape[1:]))
        is_constant = (rows == rows[:, :1]).all(axis=1)
        count += int(np.count_nonzero(is_constant))
    return count


def _class_counts(source: DataSource, split: str) -> dict[str, int]:
    faces = source.labeled(split)
    counts = np.bincount(faces.labels, minlength=len(faces.classes)).tolist()
    by_name = dict(zip(faces.classes, counts, strict=True))
    return {name: by_name.get(name, 0) for name in source.classes}


def _duplicates_across(hashes: Mapping[str, list[bytes]]) -> dict[str, int]:
    """Return how many images of a split an earlier one has, by "val in train" and the like."""
    counts: dict[str, int] = {}
    splits = list(hashes)
    for k, earlier in enumerate(splits):
        known = set(hashes[earlier])
        for later in splits[k + 1 :]:
            counts[f"{later} in {earlier}"] = sum(value in known for value in hashes[later])
    return counts


def _count_not_faces(splits: Mapping[str, RawSplit]) -> int | None:
    """Return how many images most raters call "not a face", None without splits that have votes."""
    if not splits:
        return None
    count = 0
    for faces in splits.values():
        assert faces.votes is not None
        count += int(np.count_nonzero(faces.votes[:, _NOT_A_FACE] > _MANY_VOTES))
    return count


def _rule_counts(splits: Mapping[str, RawSplit]) -> dict[str, dict[str, int]] | None:
    """Return the images that each rule keeps of each split, None without splits that have votes."""
    if not splits:
        return None
    counts: dict[str, dict[str, int]] = {}
    for rule in RULES:
        counts[rule] = {split: len(label_by_votes(faces, rule)) for split, faces in splits.items()}
    return counts
