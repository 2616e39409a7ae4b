"""Labels from the votes of ten raters, by the rules of Barsoum et al., 2016 (arXiv 1608.01041)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fertool.data.labels import FERPLUS_ORDER
from fertool.data.reader import Pixels, RawSplit

_EMOTIONS = len(FERPLUS_ORDER)
"""Columns of votes for expressions; "unknown" and "not a face" follow them."""

Votes = NDArray[np.float64]


def label_by_votes(faces: RawSplit, rule: str) -> RawSplit:
    """Return the faces that a rule keeps, labeled with the eight expressions of FER+.

    `faces.votes` uint8 [N, 10] are required. All rules first remove single votes as outliers, and
    drop faces whose winner is "unknown" or "not a face". majority: the winner needs more than half
    of the votes. soft: the distribution of the votes over the eight expressions. cross-entropy: the
    distribution over the few leading expressions.
    """
    assert faces.votes is not None
    counted = _RULES[rule](faces.votes)
    # argmax takes the first of equals, so an expression wins over "unknown" and "not a face".
    kept = (counted.sum(axis=1) > 0) & (counted.argmax(axis=1) < _EMOTIONS)
    emotions = counted[kept, :_EMOTIONS]
    soft_labels = None
    if rule != "majority":
        soft_labels = (emotions / emotions.sum(axis=1, keepdims=True)).astype(np.float32)
    return replace(
        faces.subset(kept),
        labels=emotions.argmax(axis=1),
        classes=FERPLUS_ORDER,
        soft_labels=soft_labels,
    )


def mix_votes(faces: RawSplit, class_of: Mapping[str, str], weight: float) -> RawSplit:
    """Return the faces with soft labels: their label, and by `weight` what their raters say.

    `class_of` is the class of `faces` that each expression of FER+ means; votes for others are
    dropped, and single votes as outliers. Without usable votes (none left, or most of them for
    "unknown" or "not a face") an image has its label alone.
    """
    assert faces.votes is not None
    counts = without_outliers(faces.votes)
    by_class = np.zeros((len(faces), len(faces.classes)))
    for column, name in enumerate(FERPLUS_ORDER):
        if name in class_of:
            by_class[:, faces.classes.index(class_of[name])] += counts[:, column]
    total = by_class.sum(axis=1)
    usable = (total > 0) & (counts.argmax(axis=1) < _EMOTIONS)
    mixed = np.eye(len(faces.classes))[faces.labels]
    mixed[usable] *= 1 - weight
    mixed[usable] += weight * by_class[usable] / total[usable, None]
    return replace(faces, soft_labels=mixed.astype(np.float32))


def without_outliers(votes: Pixels) -> Votes:
    """Return the votes [N, 10] with single votes set to 0."""
    # In float64, for they are compared with fractions of their total.
    return np.where(votes > 1, votes, 0).astype(np.float64)


def _majority(votes: Pixels) -> Votes:
    counts = without_outliers(votes)
    has_majority = counts.max(axis=1, keepdims=True) > 0.5 * counts.sum(axis=1, keepdims=True)
    return np.where(has_majority, counts, 0.0)


def _leading(votes: Pixels) -> Votes:
    """Return the votes for the leading expressions only, 0 where the raters disagree too much.

    Leaders are taken, ties together, until they have 75 % of the votes or are three; more than
    three are too many. "unknown" and "not a face" end the search; they count only if nothing came
    before them. The leaders must have more than half of all votes.
    """
    remaining = without_outliers(votes)
    total = remaining.sum(axis=1)
    taken = np.zeros_like(remaining)
    taken_votes = np.zeros(len(remaining))
    count = np.zeros(len(remaining), int)
    searching = np.ones(len(remaining), bool)
    for _ in range(3):
        searching &= (taken_votes < 0.75 * total) & (count < 3)
        most = remaining.max(axis=1)
        is_leader = (remaining == most[:, None]) & searching[:, None]
        ends = is_leader[:, _EMOTIONS:].any(axis=1)
        taken[:, :_EMOTIONS] += np.where(is_leader, remaining, 0)[:, :_EMOTIONS]

        ends_at_once = ends & (taken.sum(axis=1) == 0)
        first_other = _EMOTIONS + is_leader[ends_at_once, _EMOTIONS:].argmax(axis=1)
        taken[ends_at_once, first_other] = most[ends_at_once]

        leaders = is_leader[:, :_EMOTIONS].sum(axis=1)
        taken_votes += leaders * most
        count += leaders
        searching &= ~ends
        remaining[is_leader] = 0
    kept = (taken.sum(axis=1) > 0.5 * total) & (count <= 3)
    return np.where(kept[:, None], taken, 0.0)


_RULES = {"majority": _majority, "soft": without_outliers, "cross-entropy": _leading}
RULES = tuple(_RULES)
