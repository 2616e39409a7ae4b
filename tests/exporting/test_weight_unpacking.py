"""Layers that compute with floats on integer weights: in torch, in files, in ONNX Runtime."""

from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from settled import patterns, settled

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data.pixels import to_input
from fertool.exporting import export_model
from fertool.models import load_model, save_model
from fertool.quant import ComputeChoice, quantize_model
from fertool.runtime import open_predictor
from fertool.spec import ComputeSpec

FLOAT = QuantizeConfig(calibration_images=16, compute="float")
PLAIN = ExportConfig(simplify=False, packed=False)
PACKED = ExportConfig(simplify=False, packed=True)
IMAGES = patterns(20, seed=2).images


def run(content, path):
    """Return the logits of a file and the operators that ONNX Runtime runs for each image."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(path)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": IMAGES.numpy()})
    return logits, [node.op_type for node in onnx.load(path).graph.node]


def logits_of(module, spec):
    with torch.inference_mode():
        return module(to_input(IMAGES, spec.input)).numpy()


@pytest.fixture(scope="module")
def floats():
    spec, module, data = settled("micro_expnet", steps=1)
    quant, network = quantize_model(spec, module, data, FLOAT)
    return spec, module, replace(spec, quant=quant), network


def test_a_runtime_unpacks_float_weights_once_and_runs_the_float_network(floats, tmp_path):
    spec, module, quantized, network = floats
    _, operators = run(export_model(spec, module, PLAIN), tmp_path / "float.onnx")
    expected = logits_of(network, spec)
    for config in (PLAIN, PACKED):
        logits, own = run(export_model(quantized, network, config), tmp_path / "own.onnx")
        assert sorted(own) == sorted(operators)
        assert np.abs(logits - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def openvino_logits(path):
    pytest.importorskip("openvino")
    return open_predictor(path, runtime="openvino").logits(IMAGES, batch_size=len(IMAGES))


def opencv_logits(path):
    dnn = pytest.importorskip("cv2").dnn
    network = dnn.readNetFromONNX(str(path))
    network.setInput(IMAGES.numpy())
    return network.forward()


@pytest.mark.parametrize("read", [openvino_logits, opencv_logits], ids=["openvino", "opencv"])
def test_other_runtimes_compute_the_float_network(floats, tmp_path, read):
    _, _, quantized, network = floats
    path = tmp_path / "own.onnx"
    path.write_bytes(export_model(quantized, network, PLAIN))
    expected = logits_of(network, quantized)
    assert np.abs(read(path) - expected).max() < 1e-4 * max(1, np.abs(expected).max())


def test_every_weight_of_a_float_network_is_an_integer_in_the_files(floats, tmp_path):
    spec, module, quantized, network = floats
    assert not quantized.quant.activations
    assert quantized.quant.float_layers == quantized.quant.weights.keys()
    save_model(tmp_path / "own.pt", quantized, network)
    save_model(tmp_path / "float.pt", spec, module)
    size = (tmp_path / "own.pt").stat().st_size
    assert size < 0.4 * (tmp_path / "float.pt").stat().st_size
    _, loaded = load_model(tmp_path / "own.pt")
    assert np.array_equal(logits_of(loaded, spec), logits_of(network, spec))
    content = export_model(quantized, network, PLAIN)
    for tensor in onnx.load_from_string(content).graph.initializer:
        if len(tensor.dims) > 1:
            assert tensor.data_type == onnx.TensorProto.INT8


def test_a_mixture_of_both_is_the_same_network_in_both_runtimes(tmp_path):
    spec, module, data = settled("mobilenet_v3_small", steps=1, width_mult=0.25)
    names = [node.name for node in spec.graph.nodes]
    third = len(names) // 3
    nodes = {*names[:third], *names[-third:]}
    choice = ComputeChoice(frozenset(nodes), ComputeSpec((), "auto", "table", "this", "1"))
    config = QuantizeConfig(calibration_images=16)
    quant, network = quantize_model(spec, module, data, config, choice=choice)
    quantized = replace(spec, quant=quant)
    assert 0 < len(quant.float_layers) < len(quant.weights)
    for export_config in (PLAIN, PACKED):
        content = export_model(quantized, network, export_config)
        logits, operators = run(content, tmp_path / "mixed.onnx")
        integer = operators.count("QLinearConv") + operators.count("QGemm")
        assert integer > 0
        assert integer <= len(quant.weights) - len(quant.float_layers)
        expected = logits_of(network, spec)
        # Of a few roundings near a tie.
        assert np.abs(logits - expected).mean() < 0.03 * expected.std()
