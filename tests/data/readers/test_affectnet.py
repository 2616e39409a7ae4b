import io
import os
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fertool.data import DataOptions, open_data
from fertool.data.readers.affectnet import list_affectnet
from fertool.errors import FertoolError

ORDER = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
HEADER = (
    "subDirectory_filePath,face_x,face_y,face_width,face_height,"
    "facial_landmarks,expression,valence,arousal"
)


@pytest.fixture
def write_lists(tmp_path, write_image):
    """AffectNet with lists: a face of 10 x 10 in the middle of a 20 x 20 image for each expression
    number.
    """

    def write(numbers, box="5,5,10,10"):
        for name in ("training.csv", "validation.csv"):
            rows = [HEADER]
            for k, number in enumerate(numbers):
                write_image(
                    tmp_path / "Manually_Annotated_Images" / "7" / f"{name}{k}.png",
                    20 * k,
                    size=(20, 20),
                )
                rows.append(f"7/{name}{k}.png,{box},1.0;2.0,{number},0.1,-0.2")
            (tmp_path / name).write_text("\n".join(rows) + "\n")
        return tmp_path

    return write


def shown(data):
    return [data.classes[k] for k in data.labels]


def test_lists_give_the_expression_and_cut_out_the_face(write_lists):
    data = open_data(str(write_lists(range(8))), DataOptions()).split("val")
    assert shown(data) == list(ORDER)
    assert tuple(data.images.shape) == (8, 1, 10, 10)
    assert data.images[:, 0, 0, 0].tolist() == [20 * k for k in range(8)]


def test_rows_without_an_expression_or_a_face_are_left_out(write_lists):
    data = open_data(str(write_lists([0, 1, 2, 3, 4, 5, 6, 8, 9, 10])), DataOptions()).split(
        "train"
    )
    assert shown(data) == list(ORDER[:7])
    assert len(data.classes) == 7
    with pytest.raises(FertoolError, match="no images found"):
        open_data(str(write_lists(range(8), box="5,5,-1,-1")), DataOptions())


def test_seven_classes_of_eight_are_chosen_by_name(write_lists, notes):
    options = DataOptions(classes=ORDER[:7])
    data = open_data(str(write_lists(range(8))), options, on_note=notes.append).split("train")
    assert shown(data) == list(ORDER[:7])
    assert "1 train images" in notes[0]


def test_a_bad_row_and_a_missing_image_are_named(write_lists):
    root = write_lists(range(8))
    (root / "training.csv").write_text(
        f"{HEADER}\n7/a.png,5,5,10,10,1;2,0,0,0\n7/a.png,5,x,10,10,1;2,0,0,0\n"
    )
    with pytest.raises(FertoolError, match=r"training.csv:3: "):
        open_data(str(root), DataOptions())
    (root / "training.csv").write_text(f"{HEADER}\n7/gone.png,5,5,10,10,1;2,0,0,0\n")
    with pytest.raises(FertoolError, match=r"gone.png: no such image"):
        open_data(str(root), DataOptions()).split("train")


def test_annotation_files_give_the_expression(tmp_path, write_image):
    for part in ("train_set", "val_set"):
        for k in range(8):
            write_image(tmp_path / part / "images" / f"{k}.jpg", level=20 * k)
            (tmp_path / part / "annotations").mkdir(exist_ok=True)
            np.save(tmp_path / part / "annotations" / f"{k}_exp.npy", np.array(str(k)))
    assert shown(open_data(str(tmp_path), DataOptions()).split("train")) == list(ORDER)
    (tmp_path / "val_set" / "annotations" / "3_exp.npy").write_bytes(b"damaged")
    with pytest.raises(FertoolError, match=r"3_exp\.npy"):
        open_data(str(tmp_path), DataOptions())


def test_numbered_folders_are_read_when_the_format_is_named(tmp_path, write_image):
    for k in range(9):
        write_image(tmp_path / "val" / str(k) / "a.png", level=k)
    assert shown(open_data(str(tmp_path), DataOptions(format="affectnet")).split("val")) == list(
        ORDER
    )


ROW = "7/training.csv0.png,5,5,10,10,1;2,0,0,0"


def open_with_row(root, row, header=HEADER):
    (root / "training.csv").write_bytes(os.fsencode(f"{header}\n{ROW}\n{row}\n"))
    return open_data(str(root), DataOptions(classes=("neutral", "happy"))).split("train")


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.png", "7/../../a.png", "", ".", "a\0.png", "x" * 5000]
)
def test_a_path_out_of_the_data_set_is_named_by_its_line(write_lists, name):
    with pytest.raises(FertoolError, match=r"training\.csv:3: "):
        open_with_row(write_lists(range(8)), f"{name},5,5,10,10,1;2,0,0,0")


BOXES = [
    "-70000,0,10,10",
    "0,0,100000,100000",
    "2147483640,0,100,100",
    "0,0,60000,60000",
    "1e300,0,5,5",
    "nan,0,5,5",
]
BOXES += ["1e999,0,5,5", ",,,", "0,0,1e9,1", "-1e18,-1e18,1e18,1e18", "9" * 400 + ",0,5,5"]


@pytest.mark.parametrize("box", BOXES)
def test_a_box_that_no_photo_has_is_named_by_its_line(write_lists, box):
    with pytest.raises(FertoolError, match=r"training\.csv:3: "):
        open_with_row(write_lists(range(8)), f"7/training.csv0.png,{box},1;2,0,0,0")


@pytest.mark.parametrize("box", ["20,0,10,10", "0,20,10,10", "-30,5,10,10"])
def test_a_box_beside_its_image_is_named_by_the_image(write_lists, box):
    with pytest.raises(FertoolError, match=r"training\.csv0\.png: 20x20 pixels, but the face box"):
        open_with_row(write_lists(range(8)), f"7/training.csv0.png,{box},1;2,0,0,0")


def test_a_box_that_leaves_its_image_is_filled_up_with_black(write_lists):
    data = open_with_row(write_lists(range(8)), "7/training.csv1.png,15,15,10,10,1;2,1,0,0")
    assert data.images[-1, 0, 0, 0] == 20
    assert data.images[-1, 0, -1, -1] == 0


@pytest.fixture
def root(write_lists):
    return write_lists([0])


@settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.text(alphabet=st.characters(codec="utf-8"), max_size=12), max_size=12).map(",".join)
)
def test_any_row_is_read_or_named_by_its_line(root, row):
    try:
        open_with_row(root, row)
    except FertoolError as error:
        where = error.message
    else:
        where = f"{root}"
    assert where.startswith(str(root))


@pytest.mark.parametrize("row", ["x" * 200_000 + ROW, '"' + ROW, "x" * 6_000_000, "\0", "\r\0,,,"])
def test_a_row_that_is_no_row_is_one_error(write_lists, row):
    root = write_lists(range(8))
    with pytest.raises(FertoolError, match=r"training\.csv:\d+: "):
        open_with_row(root, row)


def test_names_in_a_list_need_not_be_utf8(write_lists):
    root = write_lists(range(8))
    folder = os.fsencode(root / "Manually_Annotated_Images" / "7")
    os.rename(folder + b"/training.csv0.png", folder + b"/\xe9.png")
    (root / "training.csv").write_bytes(HEADER.encode() + b"\n7/\xe9.png,5,5,10,10,1;2,0,0,0\n")
    assert len(open_data(str(root), DataOptions(classes=("neutral",))).split("train")) == 1


def annotation(shape, descr, content=b"", version=(1, 0)):
    buffer = io.BytesIO()
    write = (
        np.lib.format.write_array_header_1_0
        if version == (1, 0)
        else np.lib.format.write_array_header_2_0
    )
    write(buffer, {"descr": descr, "fortran_order": False, "shape": shape})
    return buffer.getvalue() + content


def bad_annotations():
    objects = io.BytesIO()
    np.save(objects, np.array({}), allow_pickle=True)
    archive = io.BytesIO()
    np.savez(archive, np.array(3))
    good = annotation((), "<i8", struct.pack("<q", 3))
    return {
        "zip": archive.getvalue(),
        "begins like a zip": b"PK\3\4" + bytes(50),
        "huge": annotation((10**11,), "<f8"),
        "huge text": annotation((), "<U1000000000"),
        "negative": annotation((-1,), "<i8", bytes(8)),
        "many": annotation((2,), "<i8", bytes(16)),
        "none": annotation((0,), "<i8"),
        "objects": objects.getvalue(),
        "cut": good[:-1],
        "no header": good[:10],
        "empty": b"",
        "deep": good[:10] + b"(" * 118 + good[-8:],
        "not a number": annotation((), "<f8", struct.pack("<d", float("nan"))),
        "text": annotation((), "<U3", "abc".encode("utf-32-le")),
        "another version": good[:6] + b"\t\t" + good[8:],
    }


@pytest.fixture
def annotated(tmp_path, write_image):
    for k in range(8):
        write_image(tmp_path / "train_set" / "images" / f"{k}.jpg", level=20 * k)
        (tmp_path / "train_set" / "annotations").mkdir(exist_ok=True)
        np.save(tmp_path / "train_set" / "annotations" / f"{k}_exp.npy", np.array(k))
    return tmp_path


@pytest.mark.parametrize("kind", bad_annotations())
def test_an_annotation_that_is_no_number_is_named_and_makes_no_room(annotated, kind):
    (annotated / "train_set" / "annotations" / "3_exp.npy").write_bytes(bad_annotations()[kind])
    tracemalloc.start()
    with pytest.raises(FertoolError, match=r"3_exp\.npy: no readable expression for 3\.jpg"):
        open_data(str(annotated), DataOptions())
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()


@pytest.mark.parametrize("number", ["3", 3, 3.0, np.int8(3), [3], np.float32(3)])
def test_an_annotation_may_be_of_any_type_and_version(annotated, number):
    array = np.array(number)
    path = annotated / "train_set" / "annotations" / "4_exp.npy"
    content = annotation(
        array.shape, np.lib.format.dtype_to_descr(array.dtype), array.tobytes(), (2, 0)
    )
    path.write_bytes(content)
    _, listing = list_affectnet(annotated)
    expected = [*ORDER[:4], "surprise", *ORDER[5:]]
    assert [entry.label for entry in listing["train"]] == expected


@pytest.mark.parametrize("kind", ["fifo", "device", "missing"])
def test_an_annotation_that_is_no_file_is_named(annotated, kind):
    path = annotated / "train_set" / "annotations" / "3_exp.npy"
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    with pytest.raises(FertoolError, match=r"3_exp\.npy: "):
        open_data(str(annotated), DataOptions())


def test_blanks_in_the_header_of_a_list_do_not_matter(write_lists):
    root = write_lists(range(8))
    for name in ("training.csv", "validation.csv"):
        text = (root / name).read_text()
        (root / name).write_text(text.replace(HEADER, f" {HEADER.replace(',', ' , ')} "))
    assert shown(open_data(str(root), DataOptions()).split("val")) == list(ORDER)
