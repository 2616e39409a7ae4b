from dataclasses import replace

import numpy as np
import pytest
from converted import require_bench, require_digest, require_refusal, require_same_logits
from settled import settled

from fertool.config.quantization import QuantizeConfig
from fertool.models.quantized import QuantConv2d
from fertool.quant import quantize_model

interpreters = pytest.importorskip(
    "ai_edge_litert.interpreter", reason="the extra litert is not installed"
)
pytest.importorskip("litert_torch", reason="the extra litert is not installed")


def test_a_file_carries_the_header_and_gives_the_logits_of_torch(networks, images, tmp_path):
    path = require_same_logits("tflite", networks["float"], images, tmp_path)
    require_bench(path, "tflite")
    require_digest(path)


def test_a_quantized_network_keeps_its_integers(images, tmp_path):
    spec, module, data = settled("nano_resnet", width_mult=0.25)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    network = (replace(spec, quant=quant), integer)
    path = require_same_logits("tflite", network, images, tmp_path)

    interpreter = interpreters.Interpreter(str(path))
    interpreter.allocate_tensors()
    weights, biases = set(), set()
    for tensor in interpreter.get_tensor_details():
        values = {np.int8: weights, np.int32: biases}.get(tensor["dtype"])
        # The others are activations, whose memory cannot be read.
        if values is not None and tensor["quantization_parameters"]["scales"].size > 1:
            values.add(np.sort(interpreter.get_tensor(tensor["index"]), axis=None).tobytes())
    layers = [layer for layer in integer.modules() if isinstance(layer, QuantConv2d)]
    assert len(layers) > 10
    for layer in layers:
        # Their axes are in another order there.
        assert np.sort(layer.weight.numpy(), axis=None).tobytes() in weights
        assert np.sort(layer.bias.numpy(), axis=None).tobytes() in biases


def test_activations_of_fewer_bits_are_refused(tmp_path):
    spec, module, data = settled("nano_resnet", width_mult=0.25)
    config = QuantizeConfig(calibration_images=32, activation_bits=4)
    quant, integer = quantize_model(spec, module, data, config)
    network = (replace(spec, quant=quant), integer)
    require_refusal("tflite", network, tmp_path, "activations of 4 bits")


def test_dynamic_networks_are_refused(networks, tmp_path):
    require_refusal("tflite", networks["dynamic"], tmp_path, "no choice between networks")
