"""Files that resize crops themselves, or end in a softmax, say so and give the same answers."""

import json
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fertool.artifact.contract import CONTRACT_KEY, Contract
from fertool.artifact.header import read_spec
from fertool.config.benchmark import BenchConfig
from fertool.config.exporting import ExportConfig
from fertool.errors import FertoolError, UsageError
from fertool.exporting import check_parity
from fertool.exporting.parity import make_crops
from fertool.formats.format import load_format
from fertool.runtime import bench, open_predictor
from fertool.spec import PreprocessingSpec

CONFIG = ExportConfig(simplify=False, with_preprocessing=True, with_softmax=True)


def written(format, network, path, config=CONFIG):
    spec, module = network
    load_format(format).write(path, spec, module, config)
    return read_spec(path), module


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        ("float", "onnx"),
        ("int8", "onnx"),
        ("packed", "onnx"),
        ("dynamic", "onnx"),
        ("int8", "ort"),
        ("int8", "xml"),
        ("dynamic", "xml"),
    ],
)
def test_every_kind_of_network_takes_crops_of_several_sizes(
    networks, images, tmp_path, kind, suffix
):
    format = suffix
    if suffix == "xml":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
        format = "openvino"
    config = replace(CONFIG, packed=True) if kind == "packed" else CONFIG
    path = tmp_path / f"m.{suffix}"
    spec, module = written(format, networks["int8" if kind == "packed" else kind], path, config)
    assert spec.preprocessing == PreprocessingSpec("nhwc", 3)
    parity = check_parity(load_format(format).open(path), module, spec, make_crops(images, 32, 3))
    assert parity.ok
    assert parity.n == len(images)


def test_probabilities_are_those_of_the_temperature(networks, images, tmp_path):
    spec, module = networks["float"]
    config = ExportConfig(simplify=False, with_softmax=True)
    path = tmp_path / "m.onnx"
    written("onnx", (replace(spec, temperature=2.5), module), path, config)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"images": images.numpy()})
    written("onnx", networks["float"], tmp_path / "plain.onnx", ExportConfig(simplify=False))
    logits = open_predictor(tmp_path / "plain.onnx").logits(images)
    expected = (torch.from_numpy(logits) / 2.5).softmax(1).numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # As logits they divide by the temperature to the same probabilities again.
    again = torch.from_numpy(open_predictor(path).logits(images) / 2.5).softmax(1).numpy()
    np.testing.assert_allclose(again, expected, atol=1e-6)


def test_a_dynamic_file_still_tells_the_profiles(networks, images, tmp_path):
    path = tmp_path / "m.onnx"
    written("onnx", networks["dynamic"], path)
    written("onnx", networks["dynamic"], tmp_path / "plain.onnx", ExportConfig(simplify=False))
    color = np.repeat(images.numpy(), 3, axis=1)
    chosen = open_predictor(path).choose_profile(color)
    expected = open_predictor(tmp_path / "plain.onnx").choose_profile(images.numpy())
    np.testing.assert_array_equal(chosen, expected)


def test_a_stranger_reads_the_contract_in_the_metadata(networks, tmp_path):
    path = tmp_path / "m.onnx"
    config = replace(CONFIG, crop_layout="nchw", crop_channels=1)
    spec, _ = written("onnx", networks["float"], path, config)
    metadata = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
    contract = json.loads(metadata[CONTRACT_KEY])
    assert contract["classes"] == list(spec.classes)
    assert contract["input_shape"] == ["batch", 1, "height", "width"]
    assert (contract["layout"], contract["color_order"]) == ("NCHW", "gray")
    assert contract["output"] == "probabilities"
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    assert (given.name, given.shape) == (contract["input_name"], contract["input_shape"])
    (output,) = session.get_outputs()
    assert (output.name, output.shape) == (contract["output_name"], contract["output_shape"])


def test_files_without_either_are_the_bytes_of_before(networks, tmp_path):
    path = tmp_path / "m.onnx"
    spec, _ = written("onnx", networks["float"], path, ExportConfig(simplify=False))
    assert spec == networks["float"][0]
    assert CONTRACT_KEY not in [entry.key for entry in onnx.load(path).metadata_props]
    assert "preprocessing" not in spec.to_json()


def test_a_header_that_is_not_the_graphs_is_an_error(networks, tmp_path):
    path = tmp_path / "m.onnx"
    spec, _ = written("onnx", networks["float"], path)
    from fertool.artifact.onnx_digest import append_digest

    model = onnx.load(path)
    for entry in model.metadata_props:
        if entry.key == "fertool":
            changed = replace(spec, preprocessing=PreprocessingSpec("nchw", 3))
            entry.value = changed.to_json(deflated=True)
    path.write_bytes(append_digest(model.SerializeToString()))
    with pytest.raises(FertoolError, match="the header says images of"):
        open_predictor(path)


def test_bench_measures_such_files(networks, tmp_path):
    path = tmp_path / "m.onnx"
    written("onnx", networks["float"], path)
    (result,) = bench([path], BenchConfig(warmup=1, runs=3, memory=False)).results
    assert result.latency_s.median > 0


def test_pictures_of_other_channels_are_refused(networks, tmp_path):
    path = tmp_path / "m.onnx"
    written("onnx", networks["float"], path)
    with pytest.raises(FertoolError, match="the model takes Nx3x9x9"):
        open_predictor(path).logits(np.zeros((1, 1, 9, 9), np.uint8))


@pytest.mark.parametrize("format", ["executorch", "tflite", "ncnn", "ptl"])
@pytest.mark.parametrize("option", ["with_preprocessing", "with_softmax"])
def test_formats_of_converters_refuse_them(networks, tmp_path, format, option):
    config = ExportConfig(**{option: True})
    message = f"``{option}=True``: an .* file holds the network"
    with pytest.raises(UsageError, match=message) as raised:
        load_format(format).write(tmp_path / "m", *networks["float"], config=config)
    assert ".onnx, .ort or .xml" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_layout": "nchw"}, "``crop_layout=nchw``: without ``with_preprocessing``"),
        ({"crop_channels": 1}, "``crop_channels=1``: without ``with_preprocessing``"),
        ({"with_preprocessing": True, "crop_channels": 2}, "``crop_channels=2``: images have 1 or"),
    ],
)
def test_options_that_do_not_fit_are_named(options, message):
    with pytest.raises(UsageError) as raised:
        ExportConfig(**options)
    assert message in raised.value.message


def test_the_contract_of_a_plain_file(networks):
    contract = Contract.of(networks["dynamic"][0])
    assert contract.input_shape == ("batch", 1, 32, 32)
    assert contract.other_outputs == ("profile",)
    assert not contract.any_size
