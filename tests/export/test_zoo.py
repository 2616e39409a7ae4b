"""Every architecture of the zoo, as float and as INT8 file, against torch."""

from collections import Counter
from dataclasses import replace

import onnx
import onnxruntime
import pytest
import torch
from settled import patterns, settled

from fertool.data.pixels import to_input
from fertool.export import ExportOptions, check_parity, export_model
from fertool.models import architecture_names
from fertool.quant import QuantizeConfig, quantize_model

PLAIN = ExportOptions(simplify=False)


def optimised_operators(content, tmp_path):
    """Count the operators that ONNX Runtime really runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)


@pytest.mark.parametrize("arch", architecture_names())
def test_float_and_int8_files_give_torchs_answers_with_integer_convolutions(arch, tmp_path):
    spec, module, data = settled(arch, width_mult=0.25)
    images = patterns(105, seed=1).images
    parity = check_parity(export_model(spec, module, PLAIN), module, spec, images)
    assert parity.ok, parity
    assert parity.top1_agreement == 1.0

    quant, integer = quantize_model(spec, module, data, QuantizeConfig(samples=32))
    spec = replace(spec, quant=quant)
    content = export_model(spec, integer, PLAIN)
    parity = check_parity(content, integer, spec, images)
    assert parity.ok, parity
    with torch.no_grad():
        agreement = (integer(to_float(images, spec)).argmax(1) == module(to_float(images, spec)).argmax(1)).float()
    assert agreement.mean() > 0.9

    operators = optimised_operators(content, tmp_path)
    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    linears = sum(isinstance(layer, torch.nn.Linear) for layer in module.modules())
    assert (operators["QLinearConv"], operators["Conv"], operators["FusedConv"]) == (convolutions, 0, 0)
    assert (operators["QGemm"], operators["Gemm"]) == (linears, 0)


def to_float(images, spec):
    return to_input(images, spec.input)
