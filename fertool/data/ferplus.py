"""From ten raters' votes to labels: the rules of Barsoum et al., 2016 (arXiv 1608.01041)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fertool.data.faces import Faces, Pixels
from fertool.data.labels import FERPLUS_ORDER

RULES = ("majority", "soft", "cross-entropy")

Shares = NDArray[np.float64]


def label_by_votes(faces: Faces, rule: str) -> Faces:
    """Return the faces that a rule keeps, labelled with the eight expressions of FER+.

    `faces.votes` uint8 [N, 10] must be there. All rules first remove single votes as outliers and drop faces whose
    winner is "unknown" or "not a face". majority: the winner needs more than half of the votes. soft: the distribution
    of the votes over the eight expressions. cross-entropy: the distribution over the few leading expressions.
    """
    assert faces.votes is not None
    shares = {"majority": _majority, "soft": _soft, "cross-entropy": _leading}[rule](faces.votes)
    # argmax takes the first of equals, so an expression wins over "unknown" and "not a face".
    kept = (shares.sum(axis=1) > 0) & (shares.argmax(axis=1) < len(FERPLUS_ORDER))
    emotions = shares[kept, : len(FERPLUS_ORDER)]
    soft = (
        None
        if rule == "majority"
        else (emotions / emotions.sum(axis=1, keepdims=True)).astype(np.float32)
    )
    labelled = replace(faces.subset(kept), labels=emotions.argmax(axis=1), classes=FERPLUS_ORDER)
    return replace(labelled, soft_labels=soft)


def without_outliers(votes: Pixels) -> Shares:
    """Return the votes [N, 10] with single votes set to 0."""
    return np.where(votes > 1, votes, 0).astype(np.float64)


def _majority(votes: Pixels) -> Shares:
    counts = without_outliers(votes)
    return np.where(
        counts.max(axis=1, keepdims=True) > 0.5 * counts.sum(axis=1, keepdims=True), counts, 0.0
    )


def _soft(votes: Pixels) -> Shares:
    return without_outliers(votes)


def _leading(votes: Pixels) -> Shares:
    """Take the leaders, equals together, until they hold 75 % of the votes or are three; more than three are too many.

    "unknown" and "not a face" end the search; they are counted only if nothing came before them. What is taken must be
    more than half of all votes.
    """
    left = without_outliers(votes)
    total = left.sum(axis=1)
    taken = np.zeros_like(left)
    held, count, searching = np.zeros(len(left)), np.zeros(len(left), int), np.ones(len(left), bool)
    emotions = len(FERPLUS_ORDER)
    for _ in range(3):
        searching &= (held < 0.75 * total) & (count < 3)
        leader = left.max(axis=1)
        hit = (left == leader[:, None]) & searching[:, None]
        ends = hit[:, emotions:].any(axis=1)
        taken[:, :emotions] += np.where(hit, left, 0)[:, :emotions]
        only = ends & (taken.sum(axis=1) == 0)
        taken[only, emotions + hit[only, emotions:].argmax(axis=1)] = leader[only]
        held += (hit[:, :emotions].sum(axis=1)) * leader
        count += hit[:, :emotions].sum(axis=1)
        searching &= ~ends
        left[hit] = 0
    kept = (taken.sum(axis=1) > 0.5 * total) & (count <= 3)
    return np.where(kept[:, None], taken, 0.0)
