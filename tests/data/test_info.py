import json

import numpy as np
import pytest
from PIL import Image

from fertool.cli.app import run
from fertool.data import DataOptions, open_data
from fertool.data.info import inspect_source

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)


def face(k):
    return [k, *range(15)]


@pytest.fixture
def rows():
    """Eleven faces: three of one image, two of another under different labels,
    one of one grey level.
    """
    return [
        *[(k, face(k), "Training") for k in range(7)],
        (0, face(0), "Training"),
        (4, [9] * 16, "Training"),
        (0, face(0), "PublicTest"),
        (2, face(1), "PublicTest"),
    ]


def test_copies_contradictions_and_empty_images_are_counted(write_fer2013, rows):
    info = inspect_source(open_data(str(write_fer2013(rows)), DataOptions()))
    assert (info.images, info.distinct_images, info.copy_groups) == (11, 8, 2)
    assert info.copies_across == {"val in train": 2}
    assert info.conflicting_groups == 1
    assert info.constant_images == 1
    assert info.counts["train"]["angry"] == 2
    assert info.counts["val"] == dict.fromkeys(info.classes, 0) | {"angry": 1, "fear": 1}
    assert (info.image_size, info.channels) == (4, 1)
    assert (info.not_faces, info.ferplus_rule_counts) == (None, None)


def test_votes_are_counted_over_all_rows_and_labels_by_the_rule(write_fer2013, rows, tmp_path):
    votes = [[0, 10] + [0] * 8] * 8 + [
        [4] + [0] * 8 + [6],
        [5] + [0] * 8 + [5],
        [0, 4, 4] + [0] * 7,
    ]
    lines = [
        f"{usage},,{','.join(map(str, v))}" for (_, _, usage), v in zip(rows, votes, strict=True)
    ]
    (tmp_path / "votes.csv").write_text("\n".join([HEADER, *lines]) + "\n")
    info = inspect_source(
        open_data(str(write_fer2013(rows)), DataOptions(ferplus=tmp_path / "votes.csv"))
    )
    assert info.images == 11
    assert info.not_faces == 1
    assert info.counts["train"]["happy"] == 8
    assert info.ferplus_rule_counts["majority"] == {"train": 8, "val": 0}
    assert info.ferplus_rule_counts["soft"] == {"train": 8, "val": 2}


def test_a_source_with_a_class_missing_can_still_be_looked_at(write_fer2013):
    info = inspect_source(
        open_data(
            str(write_fer2013([(3, np.arange(16) + k, "Training") for k in range(9)])),
            DataOptions(),
        )
    )
    assert sum(info.counts["train"].values()) == 8
    assert info.counts["val"]["happy"] == 1


@pytest.fixture
def photos(tmp_path, write_image):
    """Folders as cameras and people leave them."""
    for split in ("Training", "PublicTest"):
        for k in range(4):
            write_image(tmp_path / split / "happy" / f"{k}.png", level=10 * k + len(split))
    exif = Image.Exif()
    exif[0x0112] = 8
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(
        tmp_path / "Training" / "happy" / "turned.png", exif=exif
    )
    Image.fromarray(np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000).save(
        tmp_path / "PublicTest" / "happy" / "wide.png"
    )
    (tmp_path / "Training" / "sad").mkdir()
    (tmp_path / "Training" / "happy" / "list.txt").write_text("x")
    write_image(tmp_path / "extra" / "1.png")
    return tmp_path


def test_conversions_and_what_was_passed_over_are_counted(photos, notes):
    for _ in range(2):  # the second time from the cache
        info = inspect_source(open_data(str(photos), DataOptions(), on_note=notes.append))
        assert info.converted == {"orientation": 1, "16-bit": 1}
        assert info.not_images == {".txt": 1}
        assert info.left_out == {"extra": 1}
        assert info.counts == {"train": {"happy": 5, "sad": 0}, "val": {"happy": 5, "sad": 0}}
    told = [note for note in notes if "converted" in note]
    assert (
        told[0]
        == f"{photos}: train images that were converted to upright 8-bit sRGB: orientation 1"
    )


def test_the_table_shows_them_and_json_always_has_them(photos, write_fer2013, capsys):
    run(["data", "info", "--data", str(photos)])
    shown = capsys.readouterr().out
    assert "16-bit: 1" in shown
    assert ".txt: 1" in shown
    assert "extra: 1" in shown
    run(["data", "info", "--data", str(write_fer2013()), "--json"])
    found = json.loads(capsys.readouterr().out)
    assert (found["converted"], found["not_images"], found["left_out"]) == ({}, {}, {})
