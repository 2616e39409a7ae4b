from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from graphs import network_of
from onnx import TensorProto
from settled import patterns, settled

from fertool.artifact.header import read_spec
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.errors import FertoolError, UsageError
from fertool.exporting import check_parity, export_model, open_onnx, require_parity
from fertool.exporting.parity import compare_logits
from fertool.quant import quantize_model
from fertool.results import Parity
from fertool.spec import InputSpec

PLAIN = ExportConfig(simplify=False)


@pytest.fixture(scope="module")
def floats():
    spec, module, _ = settled("micro_expnet", width_mult=0.25)
    return replace(spec, digest="ab" * 32), module


@pytest.fixture(scope="module")
def integers():
    spec, module, data = settled("shufflenet_v2_x0_5", width_mult=0.25)
    quant, integer = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
    return replace(spec, quant=quant), integer


def run(content, images):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": images.numpy()})[0]


def test_the_file_takes_raw_pixels_of_any_batch_and_carries_the_spec(floats, tmp_path):
    spec, module = floats
    content = export_model(spec, module, PLAIN)
    session = onnxruntime.InferenceSession(content)
    images, logits = session.get_inputs()[0], session.get_outputs()[0]
    assert (images.name, images.type, images.shape) == (
        "images",
        "tensor(uint8)",
        ["batch", 1, 32, 32],
    )
    assert (logits.name, logits.type, logits.shape) == ("logits", "tensor(float)", ["batch", 7])
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    assert read_spec(path) == spec
    faces = patterns(5).images
    assert np.allclose(
        run(content, faces), np.concatenate([run(content, face[None]) for face in faces]), atol=1e-5
    )


@pytest.mark.parametrize("kind", ["floats", "integers"])
def test_simplified_files_are_repeatable_no_larger_and_right(kind, request):
    spec, module = request.getfixturevalue(kind)
    notes = []
    plain, content = (
        export_model(spec, module, PLAIN),
        export_model(spec, module, on_note=notes.append),
    )
    assert notes == []
    assert content == export_model(spec, module)
    assert len(content) <= 1.001 * len(plain)
    assert check_parity(open_onnx(content), module, spec, patterns(70, seed=1).images).ok
    if kind == "integers":
        assert not {"Shape", "Gather"} & {
            node.op_type for node in onnx.load_from_string(content).graph.node
        }


def test_weights_are_stored_as_integers(integers):
    spec, module = integers
    graph = onnx.load_from_string(export_model(spec, module)).graph
    types = {t.data_type for t in graph.initializer if len(t.dims) > 1}
    assert types <= {TensorProto.INT8, TensorProto.UINT8}


def test_an_int8_file_is_at_most_three_tenths_of_the_float_file():
    spec, module, data = settled("mobilenet_v3_small", steps=1)
    quant, integer = quantize_model(
        spec, module, data, QuantizeConfig(calibration_images=7, weight_observer="min-max")
    )
    floats = export_model(spec, module, PLAIN)
    assert len(export_model(replace(spec, quant=quant), integer, PLAIN)) <= 0.28 * len(floats)


@pytest.mark.parametrize("opset", [13, 20])
def test_other_operator_sets(floats, integers, opset):
    for spec, module in (floats, integers):
        content = export_model(spec, module, replace(PLAIN, opset=opset))
        assert [
            (entry.domain, entry.version) for entry in onnx.load_from_string(content).opset_import
        ] == [("", opset)]
        assert check_parity(open_onnx(content), module, spec, patterns(28, seed=1).images).ok


def test_an_operator_set_out_of_reach_is_a_usage_error():
    with pytest.raises(UsageError, match="``opset=12``"):
        ExportConfig(opset=12)


def test_nothing_is_said_on_the_way(floats, capfd, recwarn):
    export_model(*floats, PLAIN)  # type: ignore[call-arg]
    assert capfd.readouterr() == ("", "")
    assert not recwarn.list


@pytest.mark.parametrize("quantised", [False, True])
def test_channels_with_statistics_of_their_own(quantised):
    spec, module, data = settled("resnet18", channels=3, width_mult=0.25)
    mean, std = (120 / 255, 110 / 255, 100 / 255), (0.2, 0.25, 0.3)
    spec = replace(spec, input=InputSpec(3, 32, mean, std))
    if quantised:
        quant, module = quantize_model(spec, module, data, QuantizeConfig(calibration_images=32))
        assert "input" in quant.activations
        spec = replace(spec, quant=quant)
    content = export_model(spec, module, PLAIN)
    assert check_parity(open_onnx(content), module, spec, patterns(70, 3, seed=1).images).ok


def test_a_network_that_onnx_cannot_express_is_refused_by_operator(capfd):
    class Strange(torch.nn.Module):
        def forward(self, x):
            return torch.nn.functional.interpolate(x, (2, 2), mode="nearest-exact").flatten(1)

    spec, _, _ = settled("resnet18", steps=1, width_mult=0.25)
    with pytest.raises(FertoolError, match="aten::_upsample_nearest_exact2d"):
        export_model(spec, network_of(Strange(), (1, 32, 32)), PLAIN)
    assert capfd.readouterr() == ("", "")


def test_parity_finds_a_wrong_file(floats):
    spec, module = floats
    other = replace(spec, input=InputSpec(1, 32, (130 / 255,), (64 / 255,)))
    parity = check_parity(
        open_onnx(export_model(other, module, PLAIN)), module, spec, patterns(20, seed=1).images
    )
    assert not parity.ok
    with pytest.raises(FertoolError, match=r"largest difference \d.* of 20 images"):
        require_parity(parity)


def test_parity_counts_what_it_says():
    expected = torch.eye(4).repeat(50, 1)
    actual = expected.clone()
    actual[0] = torch.tensor([0.0, 2.0, 0.0, 0.0])
    actual[1] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert compare_logits(expected, actual, quantized=True) == Parity(
        2.0, 1.0, pytest.approx(0.99), 200, ok=True
    )
    actual[2] = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert not compare_logits(expected, actual, quantized=True).ok
    assert compare_logits(expected, expected + 9e-5, quantized=False).ok
    assert not compare_logits(expected, expected + 1.1e-4, quantized=False).ok
    assert not compare_logits(expected, expected * torch.nan, quantized=True).ok
