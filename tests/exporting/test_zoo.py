"""Every architecture of the zoo, as float and as INT8 file, against torch."""

from collections import Counter
from dataclasses import replace

import onnx
import onnxruntime
import pytest
import torch
from settled import patterns, settled

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data.pixels import to_input
from fertool.exporting import check_parity, export_model, open_onnx
from fertool.models import architecture_names
from fertool.quant import quantize_model

PLAIN = ExportConfig(simplify=False)
FLOAT_OPERATORS = {"BatchNormalization", "Erf", "Gelu", "LayerNormalization", "Softmax"}


def run(content, images, tmp_path):
    """Return the logits, and how often ONNX Runtime really runs each operator."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    return torch.from_numpy(session.run(None, {"images": images.numpy()})[0]), operators


def rms(values):
    return values.square().mean().sqrt().item()


@pytest.mark.parametrize("arch", architecture_names())
def test_float_and_int8_files_give_torchs_answers_with_integer_convolutions(arch, tmp_path):
    spec, module, data = settled(arch, width_mult=0.25, steps=6, count=35)
    images = patterns(35, seed=1).images
    parity = check_parity(open_onnx(export_model(spec, module, PLAIN)), module, spec, images)
    assert parity.ok, parity
    assert parity.top1_agreement == 1.0

    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    spec = replace(spec, quant=quant)
    logits, operators = run(export_model(spec, integer, PLAIN), images, tmp_path)
    with torch.no_grad():
        float_logits, integer_logits = (
            net(to_input(images, spec.input)) for net in (module, integer)
        )
    # Values near a tie round differently in the runtime; a hardly trained network amplifies that,
    # and rounding at all much more. Saturation or a wrong scale would not stay below.
    assert rms(logits - integer_logits) < 0.4 * rms(integer_logits - float_logits)

    convolutions = sum(isinstance(layer, torch.nn.Conv2d) for layer in module.modules())
    linears = sum(isinstance(layer, torch.nn.Linear) for layer in module.modules())
    entrance = convolutions + linears - len(quant.weights)
    assert (operators["QLinearConv"], operators["Conv"] + operators["FusedConv"]) == (
        convolutions - entrance,
        entrance,
    )
    assert (operators["QGemm"], operators["Gemm"]) == (linears, 0)
    # No island of floats between integers: without onnxsim only the sizes of a shuffle are read
    # from floats. Behind a float entrance all is rounded once. What has no integer kernel makes
    # islands.
    if not operators.keys() & FLOAT_OPERATORS:
        assert operators["QuantizeLinear"] == bool(entrance)
    assert entrance or not operators.keys() & {"HardSigmoid", "HardSwish", "Sigmoid"}
