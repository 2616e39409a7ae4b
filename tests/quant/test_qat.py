from dataclasses import replace

import pytest
import torch
from torch import nn

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.models import create
from fertool.quant import convert, make_problem, prepare_qat, quantize_model
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit, predict_logits

CLASSES = ("a", "b", "c")


def bars(count, split="train", seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    images = torch.randint(0, 160, (count, 1, 24, 24), generator=generator)
    for position in range(3):
        images[labels == position, :, 8 * position : 8 * position + 6] += 90
    return FaceDataset(images.to(torch.uint8), labels, CLASSES, split, "0" * 64)


@pytest.fixture(scope="module")
def two_bits():
    torch.manual_seed(0)
    spec, module = create("nano_resnet", {"width_mult": 0.25}, InputSpec(1, 24), CLASSES)
    fit(
        module,
        bars(96),
        bars(30, "val", 1),
        spec.input,
        TrainConfig(epochs=3, lr=3e-3, batch_size=16),
        device="cpu",
    )
    bits = make_problem(spec, module, None)
    widths = bits.by_layer(torch.full_like(bits.weight_counts, 2))
    quant, integer = quantize_model(spec, module.eval(), bars(60), QuantizeConfig(), bits=widths)
    return replace(spec, quant=quant), integer


def test_it_starts_and_ends_at_the_same_integers(two_bits):
    spec, integer = two_bits
    trained = prepare_qat(integer, spec.quant)
    images = to_input(bars(20, seed=3).images, spec.input)
    with torch.no_grad():
        assert torch.equal(trained(images), integer(images))
    before = {name: tensor.clone() for name, tensor in integer.state_dict().items()}
    convert(trained, integer, spec.quant)
    after = integer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_training_helps_and_the_integers_predict_what_was_trained(two_bits):
    spec, integer = two_bits
    trained, val = prepare_qat(integer, spec.quant), bars(60, "val", 4)
    start = nn.functional.cross_entropy(predict_logits(integer, val, spec.input), val.labels)
    config = TrainConfig(epochs=4, lr=1e-3, batch_size=16, weight_decay=0.0)
    fit(trained, bars(96), val, spec.input, config, device="cpu")
    convert(trained, integer, spec.quant)
    found = predict_logits(integer, val, spec.input)
    assert torch.allclose(found, predict_logits(trained, val, spec.input), atol=1e-4)
    assert nn.functional.cross_entropy(found, val.labels) < start
    for name, rule in spec.quant.weights.items():
        assert integer.get_submodule(name).weight.abs().max() <= 1
        assert rule.bits[0] == 2


def test_gradients_are_those_of_the_paper(two_bits):
    """LSQ, equations 3 and 5, written out for one layer whose output is its rounded weight."""
    spec, integer = two_bits
    trained = prepare_qat(integer, spec.quant)
    layer = trained.get_submodule("fc")
    with torch.no_grad():
        layer.weight += 0.3 * layer.scale[:, None] * torch.randn_like(layer.weight)
    pull = torch.randn_like(layer.weight)
    (layer.rounded_weight() * pull).sum().backward()
    scaled = (layer.weight / layer.scales()[:, None]).detach()
    inside, limit = scaled.abs() <= 1, 1
    by_step = torch.where(inside, scaled.round() - scaled, scaled.sign() * limit)
    expected = (by_step * pull).sum(1) / (limit * scaled.shape[1]) ** 0.5
    assert torch.allclose(layer.scale.grad, expected, atol=1e-6)
    assert torch.allclose(layer.weight.grad, torch.where(inside, pull, 0.0), atol=1e-6)


def test_gradients_pass_through_a_rounded_sigmoid():
    torch.manual_seed(0)
    spec, module = create("efficientnet_b0", {"width_mult": 0.25}, InputSpec(1, 32), CLASSES)
    images = torch.randint(0, 256, (12, 1, 32, 32), dtype=torch.uint8)
    data = FaceDataset(images, torch.arange(12) % 3, CLASSES, "train", "0" * 64)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(to_input(images, spec.input))
    quant, integer = quantize_model(
        spec, module.eval(), data, QuantizeConfig(calibration_images=12)
    )
    trained = prepare_qat(integer, quant)
    with torch.no_grad():
        assert torch.equal(
            trained(to_input(images, spec.input)), integer(to_input(images, spec.input))
        )
    parts = [part for part in trained.modules() if type(part).__name__ == "_LearnedGate"]
    assert len(parts) > 10
    x = torch.linspace(-4, 4, 41, requires_grad=True)
    y = torch.linspace(-4, 4, 41, requires_grad=True)
    (x * parts[0](torch.sigmoid(x))).sum().backward()
    nn.functional.silu(y).sum().backward()
    assert torch.allclose(x.grad, y.grad, atol=0.01)


def test_a_float_entrance_learns_too_and_arrives_in_the_network():
    torch.manual_seed(0)
    spec, module = create("mobilenet_v3_small", {"width_mult": 0.25}, InputSpec(1, 24), CLASSES)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.momentum = None
    with torch.no_grad():
        module.train()(to_input(bars(60).images, spec.input))
    quant, integer = quantize_model(
        spec, module.eval(), bars(60), QuantizeConfig(calibration_images=30)
    )
    assert "features.0.0" not in quant.weights
    before = integer.get_parameter("features.0.0.weight").clone()
    trained, val = prepare_qat(integer, quant), bars(30, "val", 4)
    fit(
        trained,
        bars(96),
        val,
        spec.input,
        TrainConfig(epochs=1, lr=1e-3, batch_size=16),
        device="cpu",
    )
    convert(trained, integer, quant)
    assert not torch.equal(integer.get_parameter("features.0.0.weight"), before)
    found = (predict_logits(net, val, spec.input) for net in (integer, trained))
    assert torch.allclose(*found, atol=1e-3)
