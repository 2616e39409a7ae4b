"""Count what a source holds, and what in it can mislead: duplicates, conflicts of labels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fertool.data.ferplus import RULES, label_by_votes
from fertool.data.problems import Contents, find_problems
from fertool.data.reader import RawSplit
from fertool.data.source import DataSource
from fertool.results import DataInfo

_NOT_A_FACE = 9
"""Column of the votes for "not a face"."""
_MANY_VOTES = 5


def inspect_source(source: DataSource) -> DataInfo:
    """Count what a source holds; reads all its splits. Raises FertoolError as reading them does."""
    splits = {split: source.raw(split) for split in source.splits}
    voted: dict[str, RawSplit] = {}
    for split, faces in splits.items():
        if faces.votes is not None:
            voted[split] = faces
    # After the splits are read: the readers find some of it only then.
    findings = source.findings
    contents = Contents(splits, findings)
    group = contents.duplicate_group
    group_sizes = np.bincount(group)
    labels_of_group = np.bincount(np.unique(np.stack([group, contents.labels]), axis=1)[0])

    _, channels, _, image_size = next(iter(splits.values())).images.shape
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
        copies_across=_duplicates_across(contents),
        conflicting_groups=int(np.count_nonzero(labels_of_group > 1)),
        constant_images=int(np.count_nonzero(contents.is_constant)),
        not_faces=_count_not_faces(voted),
        ferplus_rule_counts=_rule_counts(voted),
        converted=findings.converted,
        not_images=findings.not_images,
        left_out=findings.left_out,
        unreadable=findings.unreadable,
        problems=find_problems(contents),
    )


def _class_counts(source: DataSource, split: str) -> dict[str, int]:
    faces = source.labeled(split)
    counts = np.bincount(faces.labels, minlength=len(faces.classes)).tolist()
    by_name = dict(zip(faces.classes, counts, strict=True))
    return {name: by_name.get(name, 0) for name in source.classes}


def _duplicates_across(contents: Contents) -> dict[str, int]:
    """Return how many images of a split an earlier one has, by "val in train" and the like."""
    counts: dict[str, int] = {}
    splits = list(contents.splits)
    groups = [contents.duplicate_group[contents.split_of == k] for k in range(len(splits))]
    for k, earlier in enumerate(splits):
        for later in range(k + 1, len(splits)):
            is_known = np.isin(groups[later], groups[k])
            counts[f"{splits[later]} in {earlier}"] = int(np.count_nonzero(is_known))
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
