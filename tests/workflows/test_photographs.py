"""Photographs become a data set of crops, and are evaluated from end to end."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fertool
from fertool.errors import FertoolError, UsageError

ROOT = Path(__file__).parents[2]
MODEL = ROOT / "models" / "nano_resnet.3bit.onnx"
PICTURES = ROOT / "tests" / "faces" / "pictures"


@pytest.fixture
def photos(tmp_path):
    """Photographs in folders of splits and classes: in one of them there is no face."""
    folder = tmp_path / "photos"
    for place, picture in (
        ("train/happy/a.jpg", "astronaut.jpg"),
        ("train/neutral/c.jpg", "astronaut.jpg"),
        ("val/happy/a.jpg", "astronaut.jpg"),
        ("val/neutral/b.jpg", "astronaut.jpg"),
        ("val/neutral/cup.jpg", "coffee.jpg"),
    ):
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(PICTURES / picture, path)
    return folder


def test_crops_keep_the_folders_and_are_what_predict_sees(photos, tmp_path):
    report = fertool.crop_faces(photos, tmp_path / "crops")
    found = sorted(
        p.relative_to(tmp_path / "crops").as_posix() for p in (tmp_path / "crops").rglob("*.png")
    )
    assert found == [
        "train/happy/a.png",
        "train/neutral/c.png",
        "val/happy/a.png",
        "val/neutral/b.png",
    ]
    assert [Path(name).name for name in report.without_face] == ["cup.jpg"]

    crop = tmp_path / "crops" / "train" / "happy" / "a.png"
    assert Image.open(crop).size == (48, 48)
    (whole,) = fertool.predict(MODEL, photos / "train" / "happy" / "a.jpg")
    (cut,) = fertool.predict(MODEL, crop, detect=False)
    assert cut.faces[0].probabilities == whole.faces[0].probabilities

    data = fertool.open_data(tmp_path / "crops").fitted()
    assert len(data.split("val").labels) == 2


def test_pictures_of_one_name_stay_apart(photos, tmp_path):
    Image.open(photos / "train/happy/a.jpg").save(photos / "train/happy/a.png")
    assert fertool.crop_faces(photos / "train", tmp_path / "crops", size=64).crops == 3
    names = sorted(path.name for path in (tmp_path / "crops" / "happy").iterdir())
    assert names == ["a-2.png", "a.png"]


def test_crops_may_lie_inside_of_the_photographs(photos):
    for _ in range(2):
        assert fertool.crop_faces(photos, photos / "crops").pictures == 5


def test_a_folder_without_any_face_is_an_error(photos, tmp_path):
    with pytest.raises(FertoolError, match="no face in 1"):
        fertool.crop_faces(photos / "val" / "neutral" / "cup.jpg", tmp_path / "crops")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FertoolError, match="no pictures"):
        fertool.crop_faces(tmp_path / "empty", tmp_path / "crops")


def test_an_unreadable_photograph_does_not_end_the_others(photos, tmp_path):
    (photos / "train" / "happy" / "bad.jpg").write_bytes(b"nothing")
    report = fertool.crop_faces(photos, tmp_path / "crops")
    assert report.crops == 4
    assert "bad.jpg" in report.unreadable[0]


def test_a_photograph_without_a_face_counts_as_wrong(photos):
    data = fertool.open_data(photos)
    (result,) = fertool.evaluate(MODEL, data, detect=True).results
    assert (result.n, result.accuracy) == (3, pytest.approx(1 / 3))
    assert result.detection.without_face == 1
    assert result.detection.with_face.n == 2
    assert result.per_class["happy"].recall == 1
    names = list(result.per_class)
    assert result.confusion[names.index("neutral")][names.index("no face")] == 1


def test_evaluated_photographs_are_answered_as_their_crops(photos, tmp_path):
    fertool.crop_faces(photos, tmp_path / "crops")
    (crops,) = fertool.evaluate(MODEL, fertool.open_data(tmp_path / "crops")).results
    (whole,) = fertool.evaluate(MODEL, fertool.open_data(photos), detect=True).results
    assert whole.detection.with_face.accuracy == crops.accuracy
    assert np.trace(whole.confusion) == np.trace(crops.confusion)


def test_two_models_are_compared_on_the_same_photographs(photos):
    other = ROOT / "models" / "nano_resnet.int8.onnx"
    report = fertool.evaluate([MODEL, other], fertool.open_data(photos), detect=True)
    assert report.comparisons[0].n == 3


def test_folders_without_splits_are_evaluated_whole(photos):
    (result,) = fertool.evaluate(MODEL, fertool.open_data(photos / "val"), detect=True).results
    assert (result.split, result.n) == ("all", 3)


def test_what_cannot_be_detected_in_is_refused(photos):
    with pytest.raises(UsageError, match="detect"):
        fertool.evaluate(MODEL, fertool.open_data("synth:70"), detect=True)
    with pytest.raises(UsageError, match="one view"):
        fertool.evaluate(MODEL, fertool.open_data(photos), detect=True, tta="flip")
