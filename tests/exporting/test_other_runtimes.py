"""Every kind of exported file gives the answers of ONNX Runtime in OpenVINO and in OpenCV,
where they are installed.
"""

import functools
from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
import torch
from dynamic_networks import dynamic_network
from settled import patterns, settled

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.exporting import export_model
from fertool.quant import make_problem, quantize_model
from fertool.spec import InputSpec

KINDS = {
    "float": (None, None),
    "int8": ("eight bits", None),
    "int8 plain": ("eight bits", False),
    "int8 packed": ("eight bits", True),
    "mixed plain": ("two to eight bits", False),
    "mixed packed": ("two to eight bits", True),
}
IMAGES = patterns(70, seed=2).images.numpy()


def openvino_logits(path):
    openvino = pytest.importorskip("openvino")
    exact = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    return openvino.Core().compile_model(path, "CPU", exact)(IMAGES)[0]


def opencv_logits(path):
    cv2 = pytest.importorskip("cv2", minversion="5.0")
    network = cv2.dnn.readNetFromONNX(str(path))
    network.setInput(IMAGES)
    return network.forward()


RUNTIMES = pytest.mark.parametrize(
    "logits_of", [openvino_logits, opencv_logits], ids=["openvino", "opencv"]
)


def require_agreement(content, logits_of, path):
    path.write_bytes(content)
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    expected = session.run(["logits"], {"images": IMAGES})[0]
    found = logits_of(path)
    assert np.mean(found.argmax(1) == expected.argmax(1)) >= 0.98
    assert np.abs(found - expected).max() <= 0.1 * np.abs(expected).max()


@functools.cache
def network(arch):
    return settled(arch, width_mult=0.25)


@pytest.mark.parametrize(
    ("arch", "kind"),
    [
        *(("nano_resnet", kind) for kind in KINDS),
        *(
            (arch, kind)
            for arch in ("resnet18", "mobilenet_v3_small")
            for kind in ("int8", "mixed packed")
        ),
    ],
)
@RUNTIMES
def test_every_kind_of_file_says_the_same_in_other_runtimes(arch, kind, logits_of, tmp_path):
    spec, module, data = network(arch)
    widths, packed = KINDS[kind]
    if widths:
        problem = make_problem(spec, module, None)
        low = 2 if widths == "two to eight bits" else 8
        drawn = torch.randint(
            low, 9, (len(problem.weight_counts),), generator=torch.Generator().manual_seed(0)
        )
        quant, module = quantize_model(
            spec, module, data, QuantizeConfig(calibration_images=32), bits=problem.by_layer(drawn)
        )
        spec = replace(spec, quant=quant)
    content = export_model(spec, module, ExportConfig(simplify=False, packed=packed))
    require_agreement(content, logits_of, tmp_path / "model.onnx")


@RUNTIMES
def test_a_dynamic_file_says_the_same_in_other_runtimes(logits_of, tmp_path):
    content = export_model(*dynamic_network(InputSpec(size=32)), ExportConfig(simplify=False))  # type: ignore[call-arg]
    require_agreement(content, logits_of, tmp_path / "model.onnx")


@RUNTIMES
def test_layers_of_one_channel_can_be_read(logits_of, tmp_path):
    spec, module, data = settled("ean", width_mult=0.25)
    quant, module = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    content = export_model(replace(spec, quant=quant), module, ExportConfig(simplify=False))
    require_agreement(content, logits_of, tmp_path / "model.onnx")
