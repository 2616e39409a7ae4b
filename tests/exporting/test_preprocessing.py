"""Crops of any size become the pixels that Pillow makes of them, in every runtime that is there."""

import io

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper
from PIL import Image

from fertool.exporting.preprocessing import add_preprocessing
from fertool.spec import InputSpec, PreprocessingSpec

SIZES = [(1, 1), (1, 300), (3, 5), (33, 97), (48, 48), (96, 96), (37, 53), (150, 200), (331, 640)]
"""Heights and widths; none much taller than wide."""
TALL = [(300, 1), (97, 33), (64, 50), (480, 117)]
"""Pillow 13 filters the columns of these first, other versions the rows."""


def preprocessing_of(channels=1, size=48, preprocessing=PreprocessingSpec()):
    """Return the bytes of a graph that gives the pixels, uint8, as floats."""
    shape = ["batch", channels, size, size]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, shape)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.FLOAT, shape)
    cast = helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT)
    graph = helper.make_graph([cast], "pixels", [images], [pixels])
    # The oldest operator set that is exported, for the oldest ONNX Runtime.
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    input = InputSpec(channels, size, (0.5,) * channels, (0.5,) * channels)
    made = add_preprocessing(model, input, preprocessing)
    onnx.checker.check_model(made, full_check=True)
    return made.SerializeToString()


def crops(size, channels=3, count=2):
    """Return smooth pictures under noise, uint8 [count, H, W, channels]."""
    generator = np.random.default_rng(sum(size))
    coarse = generator.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    pictures = []
    for each in coarse:
        smooth = np.asarray(Image.fromarray(each).resize(size[::-1], Image.Resampling.BICUBIC))
        pictures.append(smooth ^ generator.integers(0, 64, smooth.shape, dtype=np.uint8))
    return np.stack(pictures)[..., :channels]


def by_pillow(pictures, mode, size=48):
    fitted = []
    for picture in pictures:
        image = Image.fromarray(picture.squeeze(-1) if picture.shape[-1] == 1 else picture)
        resized = image.convert(mode).resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(resized, int)
        fitted.append(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1))
    return np.stack(fitted)


def onnxruntime_pixels(content, pictures):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": pictures})[0].astype(int)


def openvino_pixels(content, pictures):
    openvino = pytest.importorskip("openvino", reason="openvino is not installed")
    hint = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    core = openvino.Core()
    network = core.compile_model(core.read_model(io.BytesIO(content)), "CPU", hint)
    return network(pictures)[0].astype(int)


RUNTIMES = pytest.mark.parametrize("pixels_of", [onnxruntime_pixels, openvino_pixels])


@RUNTIMES
def test_pixels_are_those_of_pillow(pixels_of):
    content = preprocessing_of()
    for size in SIZES:
        pictures = crops(size)
        np.testing.assert_array_equal(pixels_of(content, pictures), by_pillow(pictures, "L"))
    for size in TALL:
        pictures = crops(size)
        difference = pixels_of(content, pictures) - by_pillow(pictures, "L")
        assert np.abs(difference).max() <= 1, size


@pytest.mark.parametrize("size", [16, 224])
def test_networks_of_other_sizes_too(size):
    content = preprocessing_of(size=size)
    for given in SIZES[3:]:
        pictures = crops(given)
        found = onnxruntime_pixels(content, pictures)
        np.testing.assert_array_equal(found, by_pillow(pictures, "L", size))


@pytest.mark.parametrize("layout", ["nhwc", "nchw"])
@pytest.mark.parametrize(("crop_channels", "channels"), [(1, 1), (1, 3), (3, 1), (3, 3)])
def test_every_layout_and_number_of_channels(layout, crop_channels, channels):
    content = preprocessing_of(channels, preprocessing=PreprocessingSpec(layout, crop_channels))
    for size in [(48, 48), (37, 53), (64, 71)]:
        pictures = crops(size, crop_channels)
        given = pictures.transpose(0, 3, 1, 2) if layout == "nchw" else pictures
        found = onnxruntime_pixels(content, np.ascontiguousarray(given))
        np.testing.assert_array_equal(found, by_pillow(pictures, "L" if channels == 1 else "RGB"))


def test_extreme_levels_keep_their_value():
    content = preprocessing_of()
    for level in (0, 255):
        pictures = np.full((1, 117, 131, 3), level, np.uint8)
        assert set(onnxruntime_pixels(content, pictures).ravel()) == {level}


def test_a_photograph_of_a_camera_is_within_a_level():
    pictures = crops((720, 1280), count=1)
    found = onnxruntime_pixels(preprocessing_of(), pictures)
    assert np.abs(found - by_pillow(pictures, "L")).max() <= 1


def test_the_graph_is_small_and_named_once():
    model = onnx.load_from_string(preprocessing_of())
    assert len(model.SerializeToString()) < 4000
    names = [tensor.name for tensor in model.graph.initializer]
    assert len(set(names)) == len(names)
