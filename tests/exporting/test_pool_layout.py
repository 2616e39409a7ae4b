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
from fertool.exporting import export_model, open_onnx
from fertool.quant import quantize_model

PLAIN = ExportConfig(simplify=False)


@pytest.mark.parametrize("arch", ["mobilenet_v2", "mobilenet_v3_small"])
def test_pools_run_on_the_layout_of_the_convolutions_and_change_no_bit(arch, tmp_path):
    spec, module, data = settled(arch, width_mult=0.25, steps=3, count=35)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=16))
    content = export_model(replace(spec, quant=quant), integer, PLAIN)
    options = replace(PLAIN, skipped_passes=("transpose-pooled-maps",))
    plain = export_model(replace(spec, quant=quant), integer, options)
    floats = export_model(spec, module, options)
    assert export_model(spec, module, PLAIN) == floats
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    answers = [
        onnxruntime.InferenceSession(file, options).run(
            None, {"images": patterns(9, seed=1).images.numpy()}
        )[0]
        for file in (plain, content)
    ]
    assert np.array_equal(*answers)
    pools = [
        node
        for node in onnx.load(tmp_path / "optimised.onnx").graph.node
        if node.op_type == "QLinearGlobalAveragePool"
    ]
    assert pools
    assert all(
        attribute.i == 1
        for node in pools
        for attribute in node.attribute
        if attribute.name == "channels_last"
    )


@pytest.mark.parametrize(("opset", "factor"), [(18, 1e-4), (13, 1e-4), (18, 1e12)])
def test_pools_between_scales_that_are_far_apart_run(opset, factor):
    spec, module, data = settled("mobilenet_v2", width_mult=0.25, steps=3, count=35)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=16))
    (pool,) = [node.name for node in integer.graph.nodes if "pool" in node.op or node.op == "mean"]
    # As training leaves the scale of a quantizer whose values collapsed.
    integer.inserted[pool].scale.mul_(factor)
    images = patterns(9, seed=1).images
    content = export_model(replace(spec, quant=quant), integer, replace(PLAIN, opset=opset))
    # Not with a GlobalAveragePool, which ONNX Runtime refuses when it runs.
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert "ReduceMean" in operators
    assert "GlobalAveragePool" not in operators
    with torch.inference_mode():
        expected = integer(to_input(images, spec.input))
    torch.testing.assert_close(open_onnx(content)(images), expected, rtol=0, atol=1e-3)


def test_pools_between_usual_scales_stay():
    spec, module, data = settled("mobilenet_v2", width_mult=0.25, steps=3, count=35)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=16))
    content = export_model(replace(spec, quant=quant), integer, PLAIN)
    operators = [node.op_type for node in onnx.load_from_string(content).graph.node]
    assert "GlobalAveragePool" in operators
