import numpy as np
import pytest

from fertool.data import DataOptions, open_data
from fertool.errors import FertoolError

ORDER = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "angry", "contempt")
HEADER = "subDirectory_filePath,face_x,face_y,face_width,face_height,facial_landmarks,expression,valence,arousal"


@pytest.fixture
def write_lists(tmp_path, write_image):
    """AffectNet with lists: a face of 10 x 10 in the middle of a 20 x 20 image for each expression number."""

    def write(numbers, box="5,5,10,10"):
        for name in ("training.csv", "validation.csv"):
            rows = [HEADER]
            for k, number in enumerate(numbers):
                write_image(tmp_path / "Manually_Annotated_Images" / "7" / f"{name}{k}.png", 20 * k, size=(20, 20))
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
    data = open_data(str(write_lists([0, 1, 2, 3, 4, 5, 6, 8, 9, 10])), DataOptions()).split("train")
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
    (root / "training.csv").write_text(f"{HEADER}\n7/a.png,5,5,10,10,1;2,0,0,0\n7/a.png,5,x,10,10,1;2,0,0,0\n")
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
    assert shown(open_data(str(tmp_path), DataOptions(format="affectnet")).split("val")) == list(ORDER)
