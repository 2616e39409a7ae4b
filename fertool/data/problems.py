"""The problems of a data set in one list: what a person should look at before training on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from fertool.data.duplicates import group_indices, image_hashes
from fertool.data.near_duplicates import near_duplicate_pairs, perceptual_hashes
from fertool.data.pixels import constant_images
from fertool.data.reader import Findings, Indices, RawSplit
from fertool.results import DataProblem

MOST_LISTED = 1000
"""Groups of images of one problem that are listed; `count` has all."""
_SMALLEST_SIDE = 0.5
"""Of the median: an image with a shorter side is enlarged to twice its size or more."""
_LARGEST_ASPECT = 1.5
"""Longer to shorter side: a square input squeezes such an image."""
_FEW_IMAGES = 10
"""Training images of a class."""


@dataclass(frozen=True)
class Contents:
    """All images of a source, those of the first split first."""

    splits: Mapping[str, RawSplit]
    findings: Findings

    @cached_property
    def names(self) -> list[str]:
        """What each image is called."""
        names: list[str] = []
        for split, faces in self.splits.items():
            if faces.names is None:
                names += [f"{split} image {number}" for number in range(1, len(faces) + 1)]
            else:
                names += faces.names.tolist()
        return names

    @cached_property
    def split_of(self) -> NDArray[np.int64]:
        """The number of the split of each image."""
        sizes = [len(faces) for faces in self.splits.values()]
        return np.repeat(np.arange(len(sizes)), sizes)

    @cached_property
    def labels(self) -> Indices:
        """The index of the class of each image."""
        return np.concatenate([faces.labels for faces in self.splits.values()])

    @cached_property
    def duplicate_group(self) -> Indices:
        """A number for each image, the same for exact duplicates."""
        hashes: list[bytes] = []
        for faces in self.splits.values():
            hashes += image_hashes(faces.images)
        return group_indices(hashes)

    @cached_property
    def is_constant(self) -> NDArray[np.bool_]:
        """Which images have one level only."""
        return np.concatenate([constant_images(faces.images) for faces in self.splits.values()])


def find_problems(contents: Contents) -> tuple[DataProblem, ...]:
    """Return the problems that a data set has, each kind once."""
    found: list[DataProblem] = []
    for check in _CHECKS:
        for kind, groups in check(contents):
            if groups:
                found.append(DataProblem(kind, len(groups), tuple(groups[:MOST_LISTED])))
    return tuple(found)


Found = Iterator[tuple[str, Sequence[tuple[str, ...]]]]
"""Kinds of problems with all groups that have them."""


def _unreadable(contents: Contents) -> Found:
    yield "unreadable", list(contents.findings.unreadable.items())


def _skipped(contents: Contents) -> Found:
    findings = contents.findings
    counted = {
        "converted": findings.converted,
        "not_images": findings.not_images,
        "left_out": findings.left_out,
    }
    for kind, counts in counted.items():
        yield kind, [(name, f"{count:,}") for name, count in counts.items()]


def _duplicates(contents: Contents) -> Found:
    """Exact duplicates: across splits, under different labels, and the others."""
    order = np.argsort(contents.duplicate_group, kind="stable")
    starts = np.flatnonzero(np.diff(contents.duplicate_group[order])) + 1
    groups = [members for members in np.split(order, starts) if len(members) > 1]
    yield from _by_severity(contents, groups, "duplicates", "conflicting_labels")


def _near_duplicates(contents: Contents) -> Found:
    """Near duplicates among images that are not exact ones, as pairs."""
    _, first = np.unique(contents.duplicate_group, return_index=True)
    distinct = first[~contents.is_constant[first]]
    parts = [perceptual_hashes(faces.images) for faces in contents.splits.values()]
    hashes = np.concatenate([part[0] for part in parts])
    thumbnails = np.concatenate([part[1] for part in parts])
    pairs = distinct[near_duplicate_pairs(hashes[distinct], thumbnails[distinct])]
    yield from _by_severity(
        contents, list(pairs), "near_duplicates", "near_duplicates_with_other_labels"
    )


def _by_severity(
    contents: Contents, groups: Sequence[Indices], kind: str, conflicting_kind: str
) -> Found:
    """Yield groups of duplicates across splits, then under different labels, then the others."""
    across: list[tuple[str, ...]] = []
    conflicting: list[tuple[str, ...]] = []
    others: list[tuple[str, ...]] = []
    for members in groups:
        named = tuple(contents.names[member] for member in members)
        is_across = len(set(contents.split_of[members].tolist())) > 1
        is_conflicting = len(set(contents.labels[members].tolist())) > 1
        if is_across:
            across.append(named)
        if is_conflicting:
            conflicting.append(named)
        if not is_across and not is_conflicting:
            others.append(named)
    yield f"{kind}_across_splits", across
    yield conflicting_kind, conflicting
    yield kind, others


def _constant(contents: Contents) -> Found:
    yield "constant", [(contents.names[k],) for k in np.flatnonzero(contents.is_constant)]


def _odd_sizes(contents: Contents) -> Found:
    """Images much smaller than most, or far from square."""
    sizes = [faces.file_sizes for faces in contents.splits.values() if faces.file_sizes is not None]
    if len(sizes) < len(contents.splits):
        return
    all_sizes = np.concatenate(sizes)
    short = all_sizes.min(axis=1)
    long = all_sizes.max(axis=1)
    is_odd = (short < _SMALLEST_SIDE * np.median(short)) | (long > _LARGEST_ASPECT * short)
    groups = []
    for k in np.flatnonzero(is_odd):
        width, height = all_sizes[k]
        groups.append((contents.names[k], f"{width}x{height}"))
    yield "odd_size", groups


def _few_images(contents: Contents) -> Found:
    """Classes with few training images, or none."""
    train = contents.splits.get("train")
    if train is None:
        return
    counts = np.bincount(train.labels, minlength=len(train.classes)).tolist()
    groups = []
    for name, count in zip(train.classes, counts, strict=True):
        if count < _FEW_IMAGES:
            groups.append((name, str(count)))
    yield "few_training_images", groups


_CHECKS: tuple[Callable[[Contents], Found], ...] = (
    _unreadable,
    _duplicates,
    _near_duplicates,
    _constant,
    _odd_sizes,
    _few_images,
    _skipped,
)
"""In the order of the list: what stops a training or flatters its figures comes first."""
