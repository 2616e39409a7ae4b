import numpy as np
import pytest
import torch
from PIL import Image

from fertool.data import pixels, storage
from fertool.errors import FertoolError
from fertool.spec import InputSpec


@pytest.fixture
def colour():
    return torch.randint(
        0, 256, (3, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )


def test_to_input_is_pixel_over_255_less_mean_over_deviation(colour):
    spec = InputSpec(
        channels=3, size=20, mean=(10 / 255, 128 / 255, 200 / 255), std=(0.2, 0.3, 0.4)
    )
    expected = (colour.double() / 255 - torch.tensor(spec.mean).view(3, 1, 1)) / torch.tensor(
        spec.std
    ).view(3, 1, 1)
    result = pixels.to_input(colour, spec)
    assert result.dtype == torch.float32
    torch.testing.assert_close(result, expected.float(), atol=1e-6, rtol=1e-6)


def test_the_zero_point_maps_to_exactly_zero():
    spec = InputSpec()
    assert (
        pixels.to_input(
            torch.full((1, 1, 48, 48), spec.zero_point[0], dtype=torch.uint8), spec
        ).count_nonzero()
        == 0
    )


def test_to_input_refuses_images_of_another_shape(colour):
    with pytest.raises(FertoolError, match="3x20x20 for a model that takes 1x48x48"):
        pixels.to_input(colour, InputSpec())


def test_colour_becomes_the_same_gray_as_in_pil(colour):
    expected = [
        np.asarray(Image.fromarray(image.permute(1, 2, 0).numpy()).convert("L")) for image in colour
    ]
    assert np.array_equal(pixels.convert_channels(colour, 1)[:, 0].numpy(), np.stack(expected))


def test_gray_is_repeated_for_a_model_that_takes_colour(colour):
    gray = colour[:, :1]
    assert torch.equal(pixels.convert_channels(gray, 3), torch.cat([gray] * 3, dim=1))


@pytest.mark.parametrize("size", [8, 13, 32])
def test_resize_agrees_with_pil_to_one_level(colour, size):
    expected = [
        np.asarray(
            Image.fromarray(image[0].numpy()).resize((size, size), Image.Resampling.BILINEAR)
        )
        for image in colour
    ]
    result = pixels.resize(colour[:, :1], size, chunk=2)[:, 0].numpy()
    assert np.abs(result.astype(int) - np.stack(expected).astype(int)).max() <= 1


@pytest.mark.parametrize(("size", "channels"), [(12, 1), (7, 3), (12, 3)])
def test_fitted_piece_by_piece_is_fitted_at_once(monkeypatch, size, channels):
    images = np.random.default_rng(1).integers(
        0, 256, (11, 1 if channels == 3 else 3, 12, 12), dtype=np.uint8
    )
    at_once = pixels.resize(pixels.convert_channels(torch.from_numpy(images), channels), size)
    monkeypatch.setattr(storage, "PIECE", 3 * images[0].size)
    assert torch.equal(pixels.fit_images(images, size, channels), at_once)


def test_images_that_fit_already_are_not_copied():
    images = np.zeros((5, 1, 12, 12), np.uint8)
    assert pixels.fit_images(images, 12, 1).data_ptr() == images.ctypes.data
