"""Follow faces through a video, and average what is said of each over time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fertool.faces.boxes import Box, overlaps

_SAME_FACE = 0.3
"""Intersection over union of one face in two frames: a shift by half its width has a third."""
_REMEMBERED_S = 1.0
"""How long a face may be out of sight."""


@dataclass
class _Track:
    number: int
    box: Box
    seen_s: float
    average: NDArray[np.float64] | None = None


class Tracker:
    """The faces of one video, frame by frame.

    `smooth_s` is the time constant, in seconds, of an exponential average of the probabilities, so
    that labels do not flicker; it does not depend on the rate of frames.
    """

    def __init__(self, smooth_s: float) -> None:
        self._smooth_s = smooth_s
        self._tracks: list[_Track] = []
        self._next_number = 0

    def follow(self, boxes: Sequence[Box], time_s: float) -> list[int]:
        """Return the numbers of the faces with these boxes in a frame at this time.

        A face goes on where its box overlaps that of the last frame, else it is a new one.
        """
        seen_lately: list[_Track] = []
        for track in self._tracks:
            if time_s - track.seen_s <= _REMEMBERED_S:
                seen_lately.append(track)
        self._tracks = seen_lately

        numbers: list[int] = []
        for box, matched in zip(boxes, self._matched(boxes), strict=True):
            track = matched or self._new_track(box, time_s)
            track.box = box
            numbers.append(track.number)
        return numbers

    def smooth(
        self, number: int, probabilities: NDArray[np.float64], time_s: float
    ) -> NDArray[np.float64]:
        """Return the average of the probabilities [K] of a followed face until this time."""
        (track,) = [track for track in self._tracks if track.number == number]
        if track.average is None or self._smooth_s == 0:
            track.average = probabilities
        else:
            # Time stamps of a stream may step back.
            elapsed = max(0.0, time_s - track.seen_s)
            # By the time that passed and not by frames, of which some are skipped or lost.
            weight = math.exp(-elapsed / self._smooth_s)
            track.average = weight * track.average + (1 - weight) * probabilities
        track.seen_s = time_s
        return track.average

    def _new_track(self, box: Box, time_s: float) -> _Track:
        track = _Track(self._next_number, box, time_s)
        self._next_number += 1
        self._tracks.append(track)
        return track

    def _matched(self, boxes: Sequence[Box]) -> list[_Track | None]:
        """Return the track of each box, the best pairs first, None for a new face."""
        matched: list[_Track | None] = [None] * len(boxes)
        if not boxes or not self._tracks:
            return matched
        old_boxes = np.array([track.box for track in self._tracks])
        shared = np.stack([overlaps(np.array(box), old_boxes) for box in boxes])
        # Greedily, which differs from the best assignment only where faces overlap one another.
        while shared.max() >= _SAME_FACE:
            row, column = np.unravel_index(int(shared.argmax()), shared.shape)
            matched[row] = self._tracks[column]
            shared[row] = -1
            shared[:, column] = -1
        return matched
