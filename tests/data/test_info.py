import numpy as np
import pytest

from fertool.data import DataOptions, open_data
from fertool.data.info import inspect

HEADER = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"


def face(k):
    return [k, *range(15)]


@pytest.fixture
def rows():
    """Eleven faces: three of one image, two of another under different labels, one of one grey level."""
    return [
        *[(k, face(k), "Training") for k in range(7)],
        (0, face(0), "Training"),
        (4, [9] * 16, "Training"),
        (0, face(0), "PublicTest"),
        (2, face(1), "PublicTest"),
    ]


def test_copies_contradictions_and_empty_images_are_counted(write_fer2013, rows):
    info = inspect(open_data(str(write_fer2013(rows)), DataOptions()))
    assert (info.images, info.distinct_images, info.copy_groups) == (11, 8, 2)
    assert info.copies_across == {"val in train": 2}
    assert info.conflicting_groups == 1
    assert info.constant_images == 1
    assert info.counts["train"]["angry"] == 2
    assert info.counts["val"] == dict.fromkeys(info.classes, 0) | {"angry": 1, "fear": 1}
    assert (info.image_size, info.channels) == (4, 1)
    assert (info.not_faces, info.ferplus_rule_counts) == (None, None)


def test_votes_are_counted_over_all_rows_and_labels_by_the_rule(write_fer2013, rows, tmp_path):
    votes = [[0, 10] + [0] * 8] * 8 + [[4] + [0] * 8 + [6], [5] + [0] * 8 + [5], [0, 4, 4] + [0] * 7]
    lines = [f"{usage},,{','.join(map(str, v))}" for (_, _, usage), v in zip(rows, votes, strict=True)]
    (tmp_path / "votes.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    info = inspect(open_data(str(write_fer2013(rows)), DataOptions(ferplus=tmp_path / "votes.csv")))
    assert info.images == 11
    assert info.not_faces == 1
    assert info.counts["train"]["happy"] == 8
    assert info.ferplus_rule_counts["majority"] == {"train": 8, "val": 0}
    assert info.ferplus_rule_counts["soft"] == {"train": 8, "val": 2}


def test_a_source_with_a_class_missing_can_still_be_looked_at(write_fer2013):
    info = inspect(open_data(str(write_fer2013([(3, np.arange(16) + k, "Training") for k in range(9)])), DataOptions()))
    assert sum(info.counts["train"].values()) == 8
    assert info.counts["val"]["happy"] == 1
