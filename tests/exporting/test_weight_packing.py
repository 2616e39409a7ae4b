from dataclasses import replace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from settled import patterns, settled

from fertool.artifact.header import read_spec
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data.pixels import to_input
from fertool.errors import UsageError
from fertool.exporting import export_model
from fertool.models import load_model, save_model
from fertool.quant import make_problem, quantize_model

PACKED = ExportConfig(simplify=False, packed=True)


@pytest.fixture(scope="module", params=["nano_resnet", "mobilenet_v2", "shufflenet_v2_x0_5"])
def mixed(request):
    """A network whose channels have all widths from 2 to 8 bits."""
    spec, module, data = settled(request.param, steps=1)
    problem = make_problem(spec, module, None)
    generator = torch.Generator().manual_seed(0)
    widths = torch.randint(2, 9, (len(problem.weight_counts),), generator=generator)
    config = QuantizeConfig(calibration_images=16, weight_range="full")
    quant, integer = quantize_model(spec, module, data, config, bits=problem.by_layer(widths))
    return replace(spec, quant=quant), integer, float((problem.weight_counts * widths).sum()) / 8


def run(content):
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return session.run(None, {"images": patterns(20, seed=2).images.numpy()})[0]


def optimised(content, path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    options.optimized_model_filepath = str(path)
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": patterns(20, seed=2).images.numpy()})
    operators = [node.op_type for node in onnx.load(path).graph.node]
    return logits, {name: operators.count(name) for name in set(operators)}


def test_the_runtime_makes_the_same_network_of_packed_weights(mixed, tmp_path):
    spec, module, least = mixed
    packed = export_model(spec, module, PACKED)
    plain = export_model(spec, module, replace(PACKED, skipped_passes=("pack-weights",)))
    assert len(packed) - least < 0.96 * (len(plain) - least)
    first, operators = optimised(packed, tmp_path / "packed.onnx")
    second, expected = optimised(plain, tmp_path / "plain.onnx")
    assert np.array_equal(first, second)
    assert operators == expected
    assert operators["QLinearConv"] > 5
    assert "Conv" not in operators
    assert "BitShift" not in operators


def quantized(arch, draw):
    """Return spec and integer module of a network,
    with the widths that `draw` makes of a problem [channels].
    """
    spec, module, data = settled(arch, steps=1)
    problem = make_problem(spec, module, None)
    widths = draw(problem)
    quant, integer = quantize_model(
        spec, module, data, QuantizeConfig(calibration_images=16), bits=problem.by_layer(widths)
    )
    return replace(spec, quant=quant), integer, float((problem.weight_counts * widths).sum()) / 8


def test_three_bits_a_weight_take_little_more_than_their_bits(tmp_path):
    shares, generator = (
        torch.tensor([0.3, 0.4, 0.2, 0.05, 0.03, 0.02]),
        torch.Generator().manual_seed(0),
    )
    spec, module, least = quantized(
        "mobilenet_v2",
        lambda problem: (
            2 + torch.multinomial(shares, len(problem.weight_counts), True, generator=generator)
        ),
    )
    path = tmp_path / "packed.onnx"
    path.write_bytes(export_model(spec, module, PACKED))
    channels = sum(len(rule.bits) for rule in spec.quant.weights.values())
    assert path.stat().st_size < 1.09 * (least + 2 * channels)
    assert read_spec(path).quant == spec.quant


@pytest.mark.parametrize("widths", [(2, 2), (3, 8), (7, 4)])
def test_layers_of_one_width_each_are_the_same_network(widths, tmp_path):
    """Layers whose channels have one shape are packed together,
    whether their widths differ or not.
    """
    spec, module, _ = quantized(
        "nano_resnet", lambda problem: torch.tensor(widths)[problem.layers % 2]
    )
    packed = export_model(spec, module, PACKED)
    plain = export_model(spec, module, replace(PACKED, skipped_passes=("pack-weights",)))
    assert len(packed) < 0.8 * len(plain)
    first, operators = optimised(packed, tmp_path / "packed.onnx")
    second, expected = optimised(plain, tmp_path / "plain.onnx")
    assert np.array_equal(first, second)
    assert operators == expected


def test_onnxsim_leaves_weights_to_be_packed(mixed):
    spec, module, _ = mixed
    notes = []
    content = export_model(spec, module, ExportConfig(packed=True), on_note=notes.append)
    assert notes == []
    assert len(content) <= 1.001 * len(export_model(spec, module, PACKED))


def test_older_operator_sets_keep_eight_bits_and_say_so(mixed):
    spec, module, _ = mixed
    notes = []
    content = export_model(
        spec, module, ExportConfig(simplify=False, opset=17), on_note=notes.append
    )
    assert "opset 18" in notes[0]
    assert len(content) > len(export_model(spec, module, PACKED))
    with pytest.raises(UsageError, match="``packed=True`` with ``opset=17``"):
        ExportConfig(opset=17, packed=True)


def test_weights_are_packed_where_that_saves_three_tenths_of_the_file_or_when_asked():
    sizes = {}
    for bits in (3, 8):
        spec, module, _ = quantized(
            "nano_resnet",
            lambda problem, bits=bits: torch.full((len(problem.weight_counts),), bits),
        )
        forms = [
            export_model(spec, module, replace(PACKED, packed=packed))
            for packed in (None, True, False)
        ]
        sizes[bits] = [len(form) for form in forms]
        logits = [run(form) for form in forms]
        assert all(np.array_equal(each, logits[0]) for each in logits)
        kinds = {node.op_type for node in onnx.load_from_string(forms[2]).graph.node}
        computing = {"Conv", "Relu", "Add", "GlobalAveragePool", "Transpose", "Flatten", "Gemm"}
        assert kinds <= {"DequantizeLinear", "QuantizeLinear", *computing}
    automatic, packed, plain = sizes[3]
    assert automatic == packed < 0.45 * plain
    automatic, packed, plain = sizes[8]
    assert packed < automatic == plain


def test_a_model_file_packs_them_too(mixed, tmp_path):
    spec, module, least = mixed
    path = tmp_path / "mixed.pt"
    saved = save_model(path, spec, module)
    again, loaded = load_model(path)
    assert again == saved
    for name, tensor in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    stored = torch.load(path, weights_only=True)["state_dict"]
    weights = sum(tensor.nbytes for name, tensor in stored.items() if name.startswith("planes."))
    assert least <= weights < least + 4
    assert not any(name.endswith(".weight") for name in stored)


@pytest.mark.parametrize("arch", ["nano_resnet", "mobilenet_v3_small"])
def test_activations_of_fewer_bits_stay_integers_in_the_runtime(arch, tmp_path):
    spec, module, data = settled(arch, steps=1)
    counts, found = [], []
    for bits in (8, 5):
        quant, integer = quantize_model(
            spec, module, data, QuantizeConfig(calibration_images=16, activation_bits=bits)
        )
        assert set(quant.activations.values()) == {bits}
        content = export_model(replace(spec, quant=quant), integer, PACKED)
        logits, operators = optimised(content, tmp_path / "m.onnx")
        with torch.no_grad():
            expected = integer(to_input(patterns(20, seed=2).images, spec.input)).numpy()
        assert np.abs(logits - expected).max() <= 0.15 * np.abs(expected).max()
        counts.append((operators["QLinearConv"], operators.get("Conv", 0)))
        found.append(logits)
    assert counts[0] == counts[1]
    assert not np.array_equal(*found)
