"""YuNet finds the faces that are there, and says so in the picture's own pixels."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fertool.faces.detectors
from fertool.config.detection import DetectionConfig
from fertool.errors import UsageError
from fertool.faces.detector import load_detector
from fertool.faces.finding import find_faces

PICTURES = Path(__file__).parent / "pictures"


def test_the_shipped_file_is_the_one_of_the_notice():
    file = Path(fertool.faces.detectors.__file__).with_name("yunet.onnx")
    notice = (Path(__file__).parents[2] / "NOTICE").read_text()
    assert hashlib.sha256(file.read_bytes()).hexdigest() in notice
    assert "MIT License" in file.with_name("YUNET_LICENSE").read_text()


def test_boxes_and_landmarks_of_a_photograph(detector, astronaut):
    # As OpenCV's FaceDetectorYN finds them in the same file.
    (face,) = find_faces(detector, astronaut)
    assert np.allclose(face.box, (133.1, 48.4, 69.5, 83.3), atol=0.5)
    assert face.score == pytest.approx(0.939, abs=0.005)
    eye, other_eye, nose, mouth, other_mouth = face.landmarks
    assert eye[0] < nose[0] < other_eye[0]
    assert max(eye[1], other_eye[1]) < nose[1] < min(mouth[1], other_mouth[1])


@pytest.mark.parametrize("name", ["coffee.jpg", "chelsea.jpg"])
def test_pictures_without_a_face_have_none(detector, name):
    assert find_faces(detector, Image.open(PICTURES / name)) == []


@pytest.mark.parametrize("size", [(31, 33), (1, 1), (4000, 3), (640, 480), (20_000, 200)])
def test_any_size_is_looked_at(detector, size):
    assert find_faces(detector, Image.new("L", size, 90)) == []


def test_every_face_of_a_scene_is_found_once(detector, drawn):
    places = [(20, 40), (240, 200), (460, 60)]
    faces = find_faces(detector, drawn(*places))
    found = sorted((face.box[0], face.box[1]) for face in faces)
    assert len(found) == 3
    for (x, y), place in zip(found, sorted(places), strict=True):
        assert 0 < x - place[0] < 60
        assert -20 < y - place[1] < 80


def test_a_picture_at_twice_the_size_has_its_boxes_at_twice_the_place(detector, astronaut):
    large = astronaut.resize((1536, 1536), Image.Resampling.BICUBIC)
    (face,) = find_faces(detector, large)
    (small,) = find_faces(detector, astronaut)
    assert np.allclose(np.array(face.box) / 4, small.box, atol=2)


def test_a_face_that_fills_the_picture_is_found_in_a_second_look(detector, astronaut):
    face = astronaut.crop((130, 40, 210, 140)).resize((1200, 1500), Image.Resampling.BICUBIC)
    (found,) = find_faces(detector, face)
    assert found.area > 0.2 * 1200 * 1500


def test_a_tiny_crop_is_enlarged_before_it_is_looked_at(detector, astronaut):
    crop = astronaut.crop((120, 36, 216, 146)).resize((48, 48))
    (face,) = find_faces(detector, crop)
    assert 0 < face.box[0] < 24


def test_the_threshold_decides_what_counts(detector, astronaut):
    assert find_faces(detector, astronaut, DetectionConfig(min_score=0.99)) == []


def test_an_unknown_detector_lists_the_choices():
    with pytest.raises(UsageError) as caught:
        load_detector("haar")
    assert "yunet" in caught.value.hint
