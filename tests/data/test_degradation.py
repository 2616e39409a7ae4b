import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fertool.config.training import AugmentConfig
from fertool.data.augment import apply_augmentation, augment, draw_augment_params
from fertool.data.degradation import add_noise, blur, compress_jpeg, downscale
from fertool.data.normal_noise import UNIT, normal_integers
from fertool.data.synth import draw_faces
from fertool.errors import UsageError

OFF = {"flip": 0, "rotation": 0, "brightness": 0, "contrast": 0, "erasing": 0}


@pytest.fixture(scope="module")
def faces():
    pixels, _ = draw_faces(16, seed=3)
    return torch.from_numpy(pixels).float()


def shrink(images, fraction):
    return downscale(images, fraction, torch.zeros(len(images), dtype=torch.bool))


def pixelate(images, fraction):
    return downscale(images, fraction, torch.ones(len(images), dtype=torch.bool))


def of(images, value):
    return torch.full((len(images),), float(value))


@pytest.mark.parametrize("quality", [10, 30, 60, 90])
def test_jpeg_artifacts_are_those_of_a_real_file(faces, quality):
    ours = compress_jpeg(faces, of(faces, quality))
    decoded = []
    for face in faces.byte().numpy():
        file = io.BytesIO()
        Image.fromarray(face[0]).save(file, "jpeg", quality=quality)
        decoded.append(np.array(Image.open(file)))
    theirs = torch.from_numpy(np.stack(decoded)).float()
    # The decoder rounds to whole levels, and its coder transforms integers.
    assert (ours[:, 0].round() - theirs).abs().mean() < 0.5
    assert (faces[:, 0] - theirs).abs().mean() > 2.5


def test_jpeg_takes_sides_that_are_no_multiple_of_eight_and_colors(faces):
    cut = faces[..., :44, :44]
    assert compress_jpeg(cut, of(cut, 50)).shape == cut.shape
    colored = torch.cat([faces, faces / 2, faces / 3], 1)
    changed = compress_jpeg(colored, of(faces, 90))
    assert (changed - colored).abs().mean() < 4


def test_noise_has_the_deviation_asked_and_each_image_its_own():
    gray = torch.full((64, 1, 48, 48), 128.0)
    noisy = add_noise(gray, of(gray, 10), torch.rand(64))
    assert noisy.std().item() == pytest.approx(10, rel=0.02)
    assert not torch.equal(noisy[0], noisy[1])
    assert normal_integers(200_000, 1).std() / UNIT == pytest.approx(1, abs=0.01)


def test_normal_numbers_are_the_same_on_every_machine():
    assert normal_integers(8, 0).tolist() == normal_integers(9, 0)[:8].tolist()
    assert normal_integers(6, 7).tolist() == [-2252, 6543, -2680, 1306, -865, 1964]


def test_blur_and_shrinking_smooth_without_changing_a_plain_image(faces):
    plain = torch.full((2, 1, 48, 48), 77.0)
    for change, strength in ((blur, 2), (shrink, 0.4), (pixelate, 0.4)):
        torch.testing.assert_close(change(plain, of(plain, strength)), plain, atol=1e-3, rtol=0)
        rough = faces.diff(dim=-1).abs().mean()
        smooth = change(faces, of(faces, strength)).diff(dim=-1).abs().mean()
        assert smooth < 0.75 * rough
    for change in (shrink, pixelate):
        torch.testing.assert_close(change(faces, of(faces, 1)), faces, atol=1e-3, rtol=0)
    halved = pixelate(faces, of(faces, 0.5))
    averages = F.avg_pool2d(faces, 2).repeat_interleave(2, 2).repeat_interleave(2, 3)
    torch.testing.assert_close(halved, averages, atol=1e-3, rtol=0)
    torch.testing.assert_close(blur(faces, of(faces, 1e-9)), faces, atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["noise", "blur", "downscale", "jpeg"])
def test_a_fraction_of_the_images_is_degraded_each_alone(faces, name):
    many = faces.repeat(16, 1, 1, 1)
    config = AugmentConfig(**OFF, **{name: 0.25})
    changed = augment(many, config, torch.Generator().manual_seed(1))
    touched = (changed != many).flatten(1).any(1)
    assert touched.float().mean().item() == pytest.approx(0.25, abs=0.08)
    params = draw_augment_params(len(many), config, torch.Generator().manual_seed(1))
    order = torch.arange(len(many)).flip(0)
    torch.testing.assert_close(
        apply_augmentation(many[order], params[order]), changed[order], rtol=0, atol=1e-2
    )


def test_degradations_that_are_off_draw_nothing(faces):
    first, second = torch.Generator().manual_seed(2), torch.Generator().manual_seed(2)
    plain = augment(faces, AugmentConfig(), first)
    off = augment(faces, AugmentConfig(noise=0.0, noise_sigma=9.0, jpeg=0.0), second)
    assert torch.equal(plain, off)
    assert torch.equal(first.get_state(), second.get_state())


@pytest.mark.parametrize(
    ("name", "value"),
    [("noise", 1.1), ("noise_sigma", 0.0), ("downscale_to", 1.0), ("jpeg_quality", 96)],
)
def test_strengths_out_of_bounds_are_named(name, value):
    with pytest.raises(UsageError, match=f"``{name}={value}``"):
        AugmentConfig(**{name: value})
