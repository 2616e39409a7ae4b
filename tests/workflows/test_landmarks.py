"""Where the landmarks of a data set lie is measured, shown, and stored with a model."""

import json

import pytest
import torch

import fertool
from fertool.errors import FertoolError
from fertool.faces.constants import FER2013_TEMPLATE
from fertool.workflows.landmarks import measure_landmarks


def test_the_template_of_drawn_faces_is_symmetric_and_like_a_face():
    images = fertool.open_data("synth:140").fitted().split("train").images
    measured = measure_landmarks(images)
    eye, other_eye, nose, mouth, other_mouth = measured.template
    assert eye[0] == pytest.approx(1 - other_eye[0], abs=1e-3)
    assert nose[0] == pytest.approx(0.5, abs=1e-3)
    assert eye[1] < nose[1] < mouth[1] == other_mouth[1]
    # Drawn faces are framed about as those of FER2013.
    assert eye == pytest.approx(FER2013_TEMPLATE[0], abs=0.12)
    assert measured.with_face > 20


def test_images_without_faces_have_no_template():
    with pytest.raises(FertoolError, match="0 faces in 30"):
        measure_landmarks(torch.zeros((30, 1, 48, 48), dtype=torch.uint8))


def test_training_stores_the_template_and_later_steps_keep_it(tmp_path):
    data = fertool.open_data("synth:140")
    options = {"arch": "micro_expnet", "epochs": 1}
    plain = fertool.train(data, **options)
    measured = fertool.train(data, measure_landmarks=True, output=tmp_path / "m.pt", **options)
    assert plain.spec.face_template is None
    assert len(fertool.load(tmp_path / "m.pt").spec.face_template) == 5
    quantized = fertool.quantize(measured, data)
    assert quantized.spec.face_template == measured.spec.face_template


def test_data_info_shows_them(fertool):
    code, out, _ = fertool("data", "info", "--data", "synth:140", "--landmarks")
    assert code == 0
    assert "landmarks, fractions of the side" in out
    code, out, _ = fertool("data", "info", "--data", "synth:140", "--landmarks", "--json")
    assert len(json.loads(out)["landmarks"]["template"]) == 5
