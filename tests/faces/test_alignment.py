"""A crop shows the landmarks where the template has them, whatever the face's pose and place."""

import numpy as np
import pytest
from PIL import Image

from fertool.faces.alignment import crop_face, similarity
from fertool.faces.constants import FER2013_TEMPLATE
from fertool.faces.finding import find_faces

LANDMARKS = np.array(FER2013_TEMPLATE) * 48


def test_a_face_at_the_template_is_cut_as_it_is():
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48), np.uint8)
    crop = crop_face(Image.fromarray(pixels), LANDMARKS, 48)
    assert np.array_equal(np.asarray(crop), pixels)


@pytest.mark.parametrize("angle", [0, 30, 90, 180, -45])
@pytest.mark.parametrize("scale", [0.7, 1.0, 4.0])
def test_landmarks_come_to_lie_on_the_template(angle, scale):
    turn = np.deg2rad(angle)
    rotation = scale * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    moved = LANDMARKS @ rotation.T + (300, 250)
    to_crop = similarity(moved, LANDMARKS)
    assert np.allclose(moved @ to_crop[:, :2].T + to_crop[:, 2], LANDMARKS)


@pytest.mark.parametrize("size", [48, 64, 224])
@pytest.mark.parametrize("angle", [-70, 20, 180])
def test_a_turned_photograph_gives_nearly_the_same_crop(detector, astronaut, size, angle):
    (face,) = find_faces(detector, astronaut)
    upright = np.asarray(crop_face(astronaut, face.landmarks, size), float)
    assert upright.shape == (size, size, 3)

    turn = np.deg2rad(-angle)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    landmarks = (face.landmarks - 192) @ rotation.T + 192
    picture = astronaut.rotate(angle, Image.Resampling.BICUBIC)
    turned = np.asarray(crop_face(picture, landmarks, size), float)
    assert np.abs(turned - upright).mean() < 6


def test_the_edge_of_the_picture_continues_outside_of_it():
    white = Image.new("L", (40, 40), 255)
    outside = LANDMARKS - (30, 30)
    assert np.asarray(crop_face(white, outside, 48)).min() == 255
    far_away = LANDMARKS + np.array([500, -900])
    assert np.asarray(crop_face(white, far_away, 48)).min() == 255


def test_a_large_face_is_averaged_and_not_sampled():
    # Stripes finer than a pixel of the crop become their mean.
    stripes = np.zeros((960, 960), np.uint8)
    stripes[:, ::2] = 200
    crop = np.asarray(crop_face(Image.fromarray(stripes), LANDMARKS * 20, 48))
    assert np.abs(crop[8:-8, 8:-8].astype(int) - 100).max() <= 12


@pytest.mark.parametrize("landmarks", [np.zeros((5, 2)), LANDMARKS * (-1, 1) + (48, 0)])
def test_points_that_are_no_face_still_give_a_crop(landmarks):
    crop = crop_face(Image.new("RGB", (64, 48), (9, 9, 9)), landmarks, 48)
    assert crop.size == (48, 48)
