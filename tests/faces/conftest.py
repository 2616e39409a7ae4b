from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fertool.data.synth import draw_faces
from fertool.faces.detector import load_detector

PICTURES = Path(__file__).parent / "pictures"


@pytest.fixture(scope="session")
def detector():
    return load_detector("yunet")


@pytest.fixture(scope="session")
def astronaut():
    return Image.open(PICTURES / "astronaut.jpg").convert("RGB")


@pytest.fixture(scope="session")
def drawn():
    """Draw a scene of 640 x 480 with a face at each place (x, y of its left top corner)."""
    tiles = draw_faces(8, 3, 160)[0]

    def draw(*places, faces=range(8)):
        scene = np.full((480, 640), 150, np.uint8)
        for (x, y), face in zip(places, faces, strict=False):
            scene[y : y + 160, x : x + 160] = np.asarray(tiles[face]).reshape(160, 160)
        return Image.fromarray(scene).convert("RGB")

    return draw
