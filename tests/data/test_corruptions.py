import hashlib

import numpy as np
import pytest
import torch

from fertool.config.corruptions import CORRUPTIONS, REFERENCE
from fertool.data.corruptions import corrupt
from fertool.data.synth import draw_faces

NAMES = list(CORRUPTIONS)


@pytest.fixture(scope="module")
def faces():
    pixels, _ = draw_faces(12, seed=5)
    return torch.from_numpy(pixels)


def noise_like(channels, size):
    words = np.random.PCG64(1).random_raw(3 * channels * size * size)
    return torch.from_numpy((words % 256).astype(np.uint8).reshape(3, channels, size, size))


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("noise", "ac09f480fb636794"),
        ("blur", "446a6de7afe8fe0a"),
        ("resolution", "d628e67e2578df09"),
        ("brightness", "c70c5782897a10fd"),
        ("contrast", "9296d4e9e68fc201"),
        ("occlusion", "1c6b8a356bc06b9c"),
        ("shift", "3add4357d4d44426"),
        ("jpeg", "130cf5af8beee42a"),
    ],
)
def test_a_seed_gives_the_same_images_on_every_machine(name, digest):
    images = noise_like(1, 48)
    found = hashlib.sha256()
    for level in CORRUPTIONS[name].levels:
        found.update(corrupt(images, name, level, seed=7).numpy().tobytes())
    assert found.hexdigest()[:16] == digest


@pytest.mark.parametrize("name", NAMES)
def test_levels_change_an_image_more_and_more_whichever_others_are_there(faces, name, monkeypatch):
    distances = []
    for level in CORRUPTIONS[name].levels:
        changed = corrupt(faces, name, level, seed=0)
        assert (changed.shape, changed.dtype) == (faces.shape, torch.uint8)
        distances.append((changed.float() - faces.float()).abs().mean().item())
    assert distances == sorted(distances)
    assert distances[0] > 0
    # A few images at a time, as sets that are larger than memory are read.
    monkeypatch.setattr("fertool.data.storage.PIECE", 5 * 48 * 48)
    assert torch.equal(corrupt(faces, name, CORRUPTIONS[name].levels[-1], seed=0), changed)
    another = corrupt(faces, name, CORRUPTIONS[name].levels[-1], seed=1)
    assert torch.equal(another, changed) == (name not in ("noise", "occlusion", "shift"))


@pytest.mark.parametrize("name", NAMES)
def test_color_and_other_sizes_are_corrupted_too(name):
    for channels, size in ((3, 48), (1, 33), (3, 96)):
        images = noise_like(channels, size)
        changed = corrupt(images, name, CORRUPTIONS[name].levels[2], seed=0)
        assert changed.shape == images.shape
        assert not torch.equal(changed, images)


def test_lengths_grow_with_the_image(faces):
    large = faces.repeat_interleave(2, 2).repeat_interleave(2, 3)
    for images, side in ((faces, 12), (large, 24)):
        hidden = corrupt(images, "occlusion", 12, seed=0) != images
        rows = hidden.any(dim=3).flatten(1).sum(1).max().item()
        assert side - 2 <= rows <= side
    shifted = corrupt(large, "shift", 4, seed=0)
    small = corrupt(faces, "shift", 4, seed=0)
    assert torch.equal(shifted, small.repeat_interleave(2, 2).repeat_interleave(2, 3))


def test_strengths_mean_what_the_table_says():
    gray = torch.full((8, 1, 48, 48), 100, dtype=torch.uint8)
    assert corrupt(gray, "noise", 10, 0).float().std().item() == pytest.approx(10, rel=0.03)
    for name in ("blur", "resolution", "contrast", "shift"):
        assert torch.equal(corrupt(gray, name, CORRUPTIONS[name].levels[2], 0), gray)
    assert corrupt(gray, "brightness", 2, 0).unique().tolist() == [round(100 * 100 / 255)]
    line = torch.zeros(1, 1, 49, 49, dtype=torch.uint8)
    line[..., 24] = 255
    blurred = corrupt(line, "blur", 2 * 48 / 49, 0)[0, 0].double()
    axis = torch.arange(49) - 24.0
    variance = (blurred.sum(0) * axis.square()).sum() / blurred.sum()
    assert variance.sqrt().item() == pytest.approx(2, rel=0.05)
    for name, strength in REFERENCE:
        assert strength in CORRUPTIONS[name].levels
