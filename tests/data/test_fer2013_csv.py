import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fertool.data.fer2013_csv import read_rows
from fertool.errors import FertoolError

FLAT = [7] * 16
HEADER = b"emotion,pixels,Usage\n"


def test_pixels_labels_and_splits_are_those_of_the_file(write_fer2013):
    rng = np.random.default_rng(1)
    # More rows than are parsed at once, and every number of digits next to every other.
    rows = [
        (i % 7, rng.choice([0, 5, 9, 10, 99, 100, 199, 200, 255], 16), "Training")
        for i in range(150)
    ]
    found = read_rows(write_fer2013(rows))
    assert found["images"].shape == (150, 1, 4, 4)
    assert found["images"].dtype == np.uint8
    assert np.array_equal(found["images"].reshape(150, 16), np.stack([row[1] for row in rows]))
    assert found["labels"].tolist() == [row[0] for row in rows]


def test_columns_may_come_in_any_order_with_spaces_in_the_header(tmp_path):
    path = tmp_path / "icml_face_data.csv"
    path.write_text("emotion, Usage, pixels\r\n3,PrivateTest,1 2 3 4\r\n6,Training,5 6 7 255\r\n")
    found = read_rows(path)
    assert found["labels"].tolist() == [3, 6]
    assert found["split_index"].tolist() == [2, 0]
    assert found["images"].reshape(2, 4).tolist() == [[1, 2, 3, 4], [5, 6, 7, 255]]


def test_without_usage_every_row_is_for_training(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text('emotion,pixels\n3,"1 2 3 4"\n')
    assert read_rows(path)["split_index"].tolist() == [0]


def test_odd_spacing_leading_zeros_and_blank_lines_are_read(tmp_path):
    path = tmp_path / "odd.csv"
    path.write_text("emotion,pixels,Usage\n3, 1  2 003 0255 ,Training\n\n4,9 8 7 6,PublicTest\n\n")
    found = read_rows(path)
    assert found["images"].reshape(2, 4).tolist() == [[1, 2, 3, 255], [9, 8, 7, 6]]
    assert found["labels"].tolist() == [3, 4]


@pytest.mark.parametrize(
    ("row", "found"),
    [
        ((3, FLAT[:15], "Training"), "15 pixels, expected 16"),
        ((3, [*FLAT, 7], "Training"), "17 pixels, expected 16"),
        ((3, [], "Training"), "0 pixels, expected 16"),
        ((3, [*FLAT[:15], 256], "Training"), "pixel 16 is '256'"),
        ((3, [300, *FLAT[:15]], "Training"), "pixel 1 is '300'"),
        ((3, [*FLAT[:15], 1234], "Training"), "pixel 16 is '1234'"),
        ((3, [-1, *FLAT[:15]], "Training"), "pixel 1 is '-1'"),
        ((3, [*FLAT[:9], "cat", *FLAT[:6]], "Training"), "pixel 10 is 'cat'"),
        ((3, [*FLAT[:15], "7.0"], "Training"), "pixel 16 is '7.0'"),
        ((3, ["9" * 5000, *FLAT[:15]], "Training"), "pixel 1 is '9999"),
        ((7, FLAT, "Training"), "emotion '7' is not a number from 0 to 6"),
        ((-1, FLAT, "Training"), "emotion '-1'"),
        (("happy", FLAT, "Training"), "emotion 'happy'"),
        ((3, FLAT, "Practice"), "Usage 'Practice'"),
        ((3, FLAT, "Training,more"), "4 fields, expected 3"),
    ],
)
@pytest.mark.parametrize("before", [3, 70])
def test_a_bad_row_is_named_by_file_line_and_value(write_fer2013, row, found, before):
    path = write_fer2013([(3, FLAT, "Training")] * before + [row] + [(3, FLAT, "Training")] * 2)
    with pytest.raises(FertoolError) as error:
        read_rows(path)
    assert error.value.message.startswith(f"{path}:{before + 2}: ")
    assert found in error.value.message
    assert error.value.hint


def test_two_wrong_counts_that_cancel_are_found(write_fer2013):
    path = write_fer2013(
        [(3, FLAT, "Training"), (3, FLAT[:15], "Training"), (3, [*FLAT, 7], "Training")]
    )
    with pytest.raises(FertoolError, match=":3: 15 pixels"):
        read_rows(path)


def test_a_first_row_that_is_no_square_is_an_error(write_fer2013):
    with pytest.raises(FertoolError, match=":2: 15 pixels are not a square; 4x4 has 16"):
        read_rows(write_fer2013([(3, FLAT[:15], "Training")]))


def test_a_file_without_the_header_or_without_rows_is_an_error(write_fer2013):
    with pytest.raises(FertoolError, match=":1: the header has no columns"):
        read_rows(write_fer2013(header="a,b,c"))
    with pytest.raises(FertoolError, match="no rows"):
        read_rows(write_fer2013([]))


def test_rows_of_large_images_are_read_as_they_are(tmp_path):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 300 * 300))
    path = tmp_path / "large.csv"
    path.write_text(
        "emotion,pixels\n"
        + "".join(f"{k},{' '.join(map(str, row))}\n" for k, row in enumerate(images))
    )
    assert np.array_equal(read_rows(path)["images"].reshape(5, -1), images)


@pytest.mark.parametrize("where", ["header", "first row", "second row"])
def test_a_line_without_end_is_refused_with_little_memory(tmp_path, where):
    path = tmp_path / "huge.csv"
    row = b"3,1 2 3 4,Training\n"
    begin = {"header": b"emotion,pixels,", "first row": HEADER, "second row": HEADER + row}[where]
    with open(path, "wb") as file:
        file.write(begin)
        file.truncate(3_000_000_000)
    tracemalloc.start()
    with pytest.raises(FertoolError, match=r"huge\.csv:\d: a line of more than"):
        read_rows(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()


def test_a_row_of_nothing_but_commas_costs_no_more_than_its_text(tmp_path):
    path = tmp_path / "commas.csv"
    path.write_bytes(HEADER + (b"," * 4_000_000 + b"\n") * 20)
    tracemalloc.start()
    with pytest.raises(FertoolError, match=":2: 4000001 fields, expected 3"):
        read_rows(path)
    assert tracemalloc.get_traced_memory()[1] < 1 << 25
    tracemalloc.stop()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "latin-1", "cp1252"])
def test_the_encodings_of_spreadsheets_are_read(tmp_path, encoding):
    path = tmp_path / "a.csv"
    path.write_bytes("emotion,pixels,Usage\r\n3,1 2 3 4,Training\r\n".encode(encoding))
    assert read_rows(path)["labels"].tolist() == [3]


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.builds(
                b"%d,%s,%s".__mod__,
                st.tuples(
                    st.integers(-1, 10**12),
                    st.lists(st.integers(-1, 300), max_size=9).map(
                        lambda levels: " ".join(map(str, levels)).encode()
                    ),
                    st.sampled_from([b"Training", b"PublicTest", b"", b"\xff"]),
                ),
            ),
        ),
        max_size=5,
    )
)
def test_any_rows_are_read_or_the_first_bad_one_is_named(tmp_path, rows):
    path = tmp_path / "any.csv"
    path.write_bytes(HEADER + b"\n".join(rows))
    try:
        message = f"{path}: {len(read_rows(path)['labels'])} rows"
    except FertoolError as error:
        message = error.message
    assert message.startswith(f"{path}:")
