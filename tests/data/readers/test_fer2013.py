import os
import tracemalloc

import numpy as np
import pytest

from fertool.data import fer2013_csv
from fertool.data.readers import fer2013
from fertool.errors import FertoolError

HEADER = (
    "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF"
)


@pytest.fixture
def write_votes(tmp_path):
    def write(rows, header=HEADER):
        path = tmp_path / "fer2013new.csv"
        path.write_text(
            "\n".join([header, *(f"{usage},x.png,{votes}" for usage, votes in rows)]) + "\n"
        )
        return path

    return write


@pytest.fixture
def two_faces(write_fer2013):
    return write_fer2013([(3, range(16), "Training"), (4, range(1, 17), "PublicTest")])


def test_usage_is_the_split(write_fer2013, notes):
    source = fer2013.open_fer2013(write_fer2013(), None, notes.append)
    assert source.splits == ("train", "val", "test")
    assert [len(source.read(split)) for split in source.splits] == [14, 14, 14]


def test_a_second_opening_does_not_parse_again_and_gives_the_same(
    write_fer2013, notes, monkeypatch
):
    path = write_fer2013()
    first = fer2013.open_fer2013(path, None, notes.append)
    monkeypatch.setattr(fer2013, "read_rows", None)
    again = fer2013.open_fer2013(path.rename(path.with_name("moved.csv")), None, notes.append)
    assert np.array_equal(first.images, again.images)
    assert first.digest == again.digest


def test_changed_content_is_parsed_again(write_fer2013, notes):
    fer2013.open_fer2013(write_fer2013([(3, [1] * 4, "Training")]), None, notes.append)
    assert (
        fer2013.open_fer2013(
            write_fer2013([(3, [2] * 4, "Training")]), None, notes.append
        ).images.max()
        == 2
    )


def test_what_is_written_reads_back_the_same(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (10, 1, 6, 6), dtype=np.uint8)
    labels = np.arange(10) % 7
    path = tmp_path / "new" / "faces.csv"
    fer2013_csv.write_csv(path, images, labels, ["train"] * 8 + ["val", "test"])
    found = fer2013_csv.read_rows(path)
    assert np.array_equal(found["images"], images)
    assert np.array_equal(found["labels"], labels)
    assert found["split_index"].tolist() == [0] * 8 + [1, 2]


def test_votes_join_by_row_and_change_the_digest(two_faces, write_votes, notes):
    votes = write_votes(
        [("Training", "4,0,0,1,3,2,0,0,0,0"), ("PublicTest", "0,10,0,0,0,0,0,0,0,0")]
    )
    source = fer2013.open_fer2013(two_faces, votes, notes.append)
    assert source.read("val").votes.tolist() == [[0, 10, 0, 0, 0, 0, 0, 0, 0, 0]]
    assert source.digest != fer2013.open_fer2013(two_faces, None, notes.append).digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("Training", "4,0,0,1,3,2,0,0,0,0")], "1 rows of votes, but .* has 2 faces"),
        (
            [("Training", "4,0,0,1,3,2,0,0,0,0")] * 2,
            ":3: 'Training', but the same row of .* is PublicTest",
        ),
        (
            [("Training", "4,0,0,x,3,2,0,0,0,0"), ("PublicTest", "1,1,1,1,1,1,1,1,1,1")],
            ":2: '4,0,0,x",
        ),
        (
            [("Training", "4,0,0,-1,3,2,0,0,0,0"), ("PublicTest", "1,1,1,1,1,1,1,1,1,1")],
            ":2: '4,0,0,-1",
        ),
        ([("Training", "4,0,0"), ("PublicTest", "1,1,1,1,1,1,1,1,1,1")], ":2: '4,0,0' are not ten"),
    ],
)
def test_votes_that_do_not_fit_are_an_error(two_faces, write_votes, notes, rows, message):
    with pytest.raises(FertoolError, match=message):
        fer2013.open_fer2013(two_faces, write_votes(rows), notes.append)


def test_another_file_in_place_of_the_votes_is_an_error(two_faces, notes, tmp_path):
    for path in (two_faces, tmp_path / "missing.csv"):
        with pytest.raises(FertoolError, match=path.name):
            fer2013.open_fer2013(two_faces, path, notes.append)


@pytest.mark.parametrize("kind", ["device", "fifo", "folder", "huge line", "open quote", "bytes"])
def test_what_holds_no_votes_is_one_error_and_no_memory(two_faces, notes, tmp_path, kind):
    path = tmp_path / "votes.csv"
    if kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "huge line":
        with open(path, "wb") as file:
            file.write(HEADER.encode() + b"\n")
            file.truncate(3_000_000_000)
    elif kind == "open quote":
        path.write_text(f'{HEADER}\n"Training' + ",1" * 200_000)
    else:
        path.write_bytes(bytes(range(256)) * 20)
    tracemalloc.start()
    with pytest.raises(FertoolError, match=r"votes\.csv") as error:
        fer2013.open_fer2013(two_faces, path, notes.append)
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()
    assert error.value.hint


def test_more_votes_than_faces_are_counted(two_faces, write_votes, notes):
    rows = [
        ("Training", "4,0,0,1,3,2,0,0,0,0"),
        ("PublicTest", "0,10,0,0,0,0,0,0,0,0"),
        ("Training", "x"),
    ]
    with pytest.raises(FertoolError, match=r"3 rows of votes, but .* has 2 faces"):
        fer2013.open_fer2013(two_faces, write_votes(rows), notes.append)
