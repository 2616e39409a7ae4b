from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
from settled import patterns, settled

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.exporting import export_model
from fertool.quant import quantize_model


def test_hidden_linear_layers_stay_integer_with_the_same_logits(tmp_path):
    spec, module, data = settled("mobilenet_v3_small", width_mult=0.25)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    network = (replace(spec, quant=quant), integer)
    options = ExportConfig(simplify=False, packed=False)
    without = replace(options, skipped_passes=("halve-linear-scales",))
    contents = [export_model(*network, config=each) for each in (options, without)]

    found, names = [], []
    for content in contents:
        graph = onnx.load_from_string(content).graph
        names.append([node.op_type for node in graph.node])
        settings = onnxruntime.SessionOptions()
        settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
        session = onnxruntime.InferenceSession(content, settings)
        found.append(session.run(None, {"images": patterns(21, seed=2).images.numpy()})[0])
        optimized = onnx.load(settings.optimized_model_filepath).graph
        assert [node.op_type for node in optimized.node].count("QGemm") == 2
    assert names[0].count("Cast") == 1
    assert "Cast" not in names[1]
    assert np.array_equal(*found)
