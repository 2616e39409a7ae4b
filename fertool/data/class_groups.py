"""Relabel images: classes of a data set merged or dropped, and brought into a model's order."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from fertool.data.labels import match_classes, name_classes
from fertool.data.reader import RawSplit
from fertool.errors import unknown_name

ClassGroups = Mapping[str, tuple[str, ...]]
"""The classes to be, in order, with the names of those in the data set that each consists of."""


def resolve_groups(groups: ClassGroups, own: tuple[str, ...]) -> dict[str, str]:
    """Return the class to be of each of a data set's own; those in no group are missing.

    Raises UsageError for a name that the data set does not have.
    """
    new_name = name_classes(dict.fromkeys(groups, "``classes``"))
    target_of: dict[str, str] = {}
    for target, members in groups.items():
        meant = match_classes(members, own)
        for member in members:
            if member not in meant:
                raise unknown_name("class in ``classes``", member, own)
            target_of[meant[member]] = new_name[target]
    return target_of


def relabel(faces: RawSplit, target_of: Mapping[str, str], classes: tuple[str, ...]) -> RawSplit:
    """Return the faces with labels in `classes`, by name; images of other classes are dropped.

    Soft labels of merged classes are added up. An image then has the label of its largest one,
    unless its own is as large.
    """
    new_index = np.full(len(faces.classes), -1, np.int64)
    for k, name in enumerate(faces.classes):
        if name in target_of:
            new_index[k] = classes.index(target_of[name])
    labels = new_index[faces.labels]
    soft = faces.soft_labels
    if soft is not None:
        # Columns of classes that the source lacks stay 0.
        merged = np.zeros((len(faces), len(classes)), np.float32)
        for column in np.flatnonzero(new_index >= 0):
            merged[:, new_index[column]] += soft[:, column]
        own = merged[np.arange(len(faces)), labels]
        exceeds = (labels >= 0) & (merged.max(axis=1) > own)
        labels = np.where(exceeds, merged.argmax(axis=1), labels)
        soft = merged

    faces = replace(faces, labels=labels, classes=classes, soft_labels=soft)
    if (labels < 0).any():
        faces = faces.subset(labels >= 0)
    if faces.soft_labels is not None:
        # Dropped classes took their part of the votes with them.
        total = faces.soft_labels.sum(axis=1, keepdims=True)
        faces = replace(faces, soft_labels=faces.soft_labels / total)
    return faces
