from dataclasses import replace

import onnxruntime
import pytest
import torch
from dynamic_networks import cascade_network, dynamic_network

from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data import DataOptions, open_data
from fertool.data.pixels import to_input
from fertool.errors import FertoolError
from fertool.exporting import export_model
from fertool.models import load_model, save_model
from fertool.models.quantized import QuantizedNet
from fertool.models.quantized_gate import QuantizedGate
from fertool.quant import (
    convert_dynamic,
    dynamic_divergences,
    make_dynamic_problem,
    plan_dynamic,
    prepare_dynamic_qat,
    quantize_dynamic,
    weight_divergences,
)
from fertool.spec import InputSpec

INPUT = InputSpec(size=48)
CONFIG = QuantizeConfig(calibration_images=64)


@pytest.fixture(scope="module")
def faces():
    return open_data("synth:210", DataOptions(size=48, classes=("angry", "happy", "sad"))).split(
        "train"
    )


@pytest.fixture(scope="module", params=["statistics", "cascade"])
def quantized(request, faces):
    make = dynamic_network if request.param == "statistics" else cascade_network
    spec, module = make(INPUT)
    quant, integer = quantize_dynamic(spec, module, faces, CONFIG)
    return spec, module, quant, integer


def with_quant(spec, quant):
    return replace(spec, quant=quant)


def test_every_profile_and_the_gate_are_integers(quantized):
    spec, _, quant, integer = quantized
    assert all(isinstance(network, QuantizedNet) for network in integer.networks)
    names = set(quant.weights)
    for index in range(3):
        assert f"networks.{index}.classifier.3" in names
    has_gate = spec.gates.kind == "statistics"
    assert ({"gate.fc1", "gate.fc2"} <= names) == has_gate
    assert isinstance(integer.gate, QuantizedGate) == has_gate


def test_a_rounded_gate_chooses_as_before(quantized, faces):
    _, module, _, integer = quantized
    if module.gate is None:
        pytest.skip("a cascade has no gate")
    x = to_input(faces.images, INPUT)
    with torch.inference_mode():
        same = (module.choose(x) == integer.choose(x)).float().mean()
    assert same > 0.97


def test_a_file_brings_the_integers_back_and_onnx_gives_the_same_classes(
    quantized, faces, tmp_path
):
    spec, _, quant, integer = quantized
    path = tmp_path / "q.pt"
    saved = save_model(path, with_quant(spec, quant), integer)
    again, loaded = load_model(path)
    assert again == saved
    images = faces.images[:96]
    with torch.inference_mode():
        wanted, profiles = integer.route(to_input(images, INPUT))
        torch.testing.assert_close(loaded(to_input(images, INPUT)), wanted)
    session = onnxruntime.InferenceSession(
        export_model(again, loaded, ExportConfig()), providers=["CPUExecutionProvider"]
    )
    logits, chosen = session.run(["logits", "profile"], {"images": images.numpy()})
    assert (logits.argmax(1) == wanted.argmax(1).numpy()).mean() >= 0.97
    assert (chosen == profiles.numpy()).mean() >= 0.97


def test_bits_of_all_profiles_are_packed_into_one_file(quantized, faces, tmp_path):
    spec, module, quant, _ = quantized
    problem = make_dynamic_problem(spec, module, None)
    assert {name for name in quant.weights if not name.startswith("gate")} == set(problem.names)
    bits = {name: (3,) for name in problem.names}
    few, integer = quantize_dynamic(
        spec, module, faces, QuantizeConfig(calibration_images=32, rounding="nearest"), bits=bits
    )
    sizes = []
    for each, net in ((quant, quantized[3]), (few, integer)):
        save_model(tmp_path / "b.pt", with_quant(spec, each), net)
        sizes.append((tmp_path / "b.pt").stat().st_size)
        load_model(tmp_path / "b.pt")
    assert sizes[1] < 0.75 * sizes[0]


def test_what_rounding_costs_a_profile_counts_by_the_images_that_it_answers(quantized, faces):
    spec, module, _, _ = quantized
    few = faces.balanced_subset(12, 0)
    config = QuantizeConfig(rounding="nearest")
    found = dynamic_divergences(spec, module, few, config)
    problem = make_dynamic_problem(spec, module, None)
    assert found.shape == problem.errors.shape
    alone = weight_divergences(spec.of_profile(0), module.networks[0], few, config)
    share = max(module.shares[0], 1e-3)
    torch.testing.assert_close(found[: len(alone)], share * alone)


def test_training_starts_at_the_integers_and_ends_in_them(quantized, faces):
    _, _, quant, integer = quantized
    x = to_input(faces.images[:32], INPUT)
    trained = prepare_dynamic_qat(integer, quant)
    with torch.no_grad():
        torch.testing.assert_close(trained.eval()(x), integer(x), atol=1e-3, rtol=1e-3)
    assert not any(name.startswith("gate") for name, _ in trained.named_parameters())
    before = integer.networks[0].layer("classifier.3").weight_scale.clone()
    with torch.no_grad():
        trained.networks[0].layer("classifier.3").scale.mul_(1.5)
    convert_dynamic(trained, integer, quant)
    assert torch.all(integer.networks[0].layer("classifier.3").weight_scale > before)


def test_a_quantized_one_is_not_quantized_again(quantized):
    spec, _, quant, integer = quantized
    with pytest.raises(FertoolError, match="quantized already"):
        plan_dynamic(with_quant(spec, quant), integer, CONFIG)


def test_names_of_no_profile_are_refused(quantized, tmp_path):
    spec, _, quant, integer = quantized
    activations = {**quant.activations, "networks.9.x": 8}
    path = tmp_path / "w.pt"
    save_model(path, with_quant(spec, replace(quant, activations=activations)), integer)
    with pytest.raises(FertoolError, match=r"activation networks\.9\.x"):
        load_model(path)
