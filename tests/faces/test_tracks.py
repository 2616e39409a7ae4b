"""Faces keep their numbers through a video, and their labels do not flicker."""

import numpy as np
import pytest

from fertool.faces.tracks import Tracker

SURE, OTHER = np.array([0.9, 0.1]), np.array([0.1, 0.9])


def box(x, y=100.0):
    return (float(x), float(y), 60.0, 80.0)


def test_a_face_that_moves_keeps_its_number():
    tracker = Tracker(0.25)
    numbers = [tracker.follow([box(100 + 8 * k)], k / 30) for k in range(20)]
    assert numbers == [[0]] * 20


def test_two_faces_that_change_places_in_the_list_keep_theirs():
    tracker = Tracker(0.25)
    assert tracker.follow([box(100), box(300)], 0.0) == [0, 1]
    assert tracker.follow([box(302), box(103)], 0.04) == [1, 0]


def test_a_face_elsewhere_is_another_one():
    tracker = Tracker(0.25)
    assert tracker.follow([box(100)], 0.0) == [0]
    assert tracker.follow([box(400)], 0.04) == [1]


@pytest.mark.parametrize(("gap_s", "number"), [(0.5, 0), (3.0, 1)])
def test_a_face_may_be_out_of_sight_for_a_moment(gap_s, number):
    tracker = Tracker(0.25)
    tracker.follow([box(100)], 0.0)
    tracker.follow([], 0.1)
    assert tracker.follow([box(104)], gap_s) == [number]


def test_a_single_odd_frame_does_not_change_the_label():
    tracker = Tracker(0.25)
    labels = []
    for k in range(60):
        tracker.follow([box(100)], k / 30)
        raw = OTHER if k % 10 == 9 else SURE
        labels.append(int(tracker.smooth(0, raw, k / 30).argmax()))
    assert set(labels) == {0}


def test_the_average_depends_on_time_and_not_on_the_number_of_frames():
    ends = []
    for rate in (10, 60):
        tracker = Tracker(0.25)
        for k in range(rate + 1):
            tracker.follow([box(100)], k / rate)
            end = tracker.smooth(0, SURE if k == 0 else OTHER, k / rate)
        ends.append(end[1])
    assert ends[0] == pytest.approx(ends[1], abs=1e-9)


def test_without_smoothing_each_frame_stands_alone():
    tracker = Tracker(0.0)
    for k, raw in enumerate((SURE, OTHER, SURE)):
        tracker.follow([box(100)], k / 30)
        assert np.array_equal(tracker.smooth(0, raw, k / 30), raw)
