import numpy as np
import pytest
from PIL import Image

from fertool.faces.alignment import crop_face
from fertool.faces.constants import FER2013_TEMPLATE


def gradient(height, width):
    """Return RGB pixels that tell every direction and channel apart."""
    rows, columns = np.mgrid[:height, :width]
    planes = [rows * 255 // height, columns * 255 // width, (rows + columns) * 127 // height % 256]
    return np.stack(planes, -1).astype(np.uint8)


@pytest.mark.parametrize("turned", [0.0, 6.0, 12.0])
def test_faces_are_cut_as_predict_cuts_them(program, turned):
    cv2 = pytest.importorskip("cv2")
    assert cv2
    camera = program("camera")
    cutter = camera.FaceCutter.__new__(camera.FaceCutter)
    cutter._size, cutter._template = 48, np.array(FER2013_TEMPLATE) * 48
    pixels = gradient(400, 500)
    landmarks = np.array(FER2013_TEMPLATE) * 150 + [170, 120]
    # The nose of a head that is turned: no similarity meets all five.
    landmarks[2, 0] += turned
    wanted = np.asarray(crop_face(Image.fromarray(pixels), landmarks, 48), np.int16)
    found = cutter._upright(pixels, landmarks).astype(np.int16)
    assert np.abs(found - wanted).mean() < 1


def test_landmarks_in_one_point_are_no_error(program):
    camera = program("camera")
    found = camera.similarity(np.full((5, 2), 7.0), np.array(FER2013_TEMPLATE) * 48)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("shape", [(64, 96), (200, 130), (481, 640), (30, 40)])
def test_the_square_in_the_middle_is_the_largest(program, shape):
    camera = program("camera")
    cutter = camera.FaceCutter.__new__(camera.FaceCutter)
    cutter._size = 48
    pixels = gradient(*shape)
    side = min(shape)
    top, left = (shape[0] - side) // 2, (shape[1] - side) // 2
    square = Image.fromarray(pixels).crop((left, top, left + side, top + side))
    wanted = np.asarray(square.resize((48, 48), Image.Resampling.BILINEAR), np.int16)
    found = cutter._middle(pixels).astype(np.int16)
    assert np.median(np.abs(found - wanted)) <= 6
