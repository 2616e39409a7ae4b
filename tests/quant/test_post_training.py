from dataclasses import replace

import pytest
import torch
from torch import nn

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.errors import FertoolError, UsageError
from fertool.models import create, load_model, save_model
from fertool.quant import quantize_model
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def faces(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 1, 32, 32), generator=generator, dtype=torch.uint8)
    return FaceDataset(images, torch.arange(count) % 7, CLASSES, "train", "0" * 64)


def network(arch="mobilenet_v3_small", seed=0):
    torch.manual_seed(seed)
    spec, module = create(arch, {"width_mult": 0.25}, InputSpec(1, 32), CLASSES)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = None
            nn.init.uniform_(layer.weight, 0.5, 1.5)
    with torch.no_grad():
        module.train()(to_input(faces(32, 5).images, spec.input))
    return spec, module.eval()


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "shufflenet_v2_x0_5", "resnet18"])
def test_a_saved_network_comes_back_with_the_same_logits_and_real_integers(arch, tmp_path):
    spec, module = network(arch)
    quant, integer = quantize_model(spec, module, faces(16))
    images = to_input(faces(9, 1).images, spec.input)
    path = tmp_path / "int8.pt"
    saved = save_model(path, replace(spec, quant=quant), integer)
    loaded_spec, loaded = load_model(path)
    with torch.no_grad():
        assert torch.equal(loaded(images), integer(images))
    assert loaded_spec == saved
    assert saved.params == save_model(tmp_path / "float.pt", spec, module).params
    tensors = loaded.state_dict()
    for name in quant.weights:
        assert tensors[f"{name}.weight"].dtype == torch.int8
        assert tensors[f"{name}.bias"].dtype == torch.int32
        assert tensors[f"{name}.weight"].abs().max() <= 63
    again = save_model(tmp_path / "again.pt", replace(spec, quant=quant), loaded)
    assert (tmp_path / "again.pt").read_bytes() == path.read_bytes()
    assert again == saved


def test_the_artifact_is_at_most_three_tenths_of_the_float_one(tmp_path):
    spec, module = create("micro_expnet", {}, InputSpec(1, 32), CLASSES)
    quant, integer = quantize_model(
        spec, module.eval(), faces(7), QuantizeConfig(weight_observer="min-max")
    )
    save_model(tmp_path / "float.pt", spec, module)
    save_model(tmp_path / "int8.pt", replace(spec, quant=quant), integer)
    assert (tmp_path / "int8.pt").stat().st_size <= 0.3 * (tmp_path / "float.pt").stat().st_size


def test_errors_are_of_the_size_of_the_grids():
    """From 8 to 15 % of the logits' deviation for five draws of the weights, 11 % in the mean."""
    shares = []
    for seed in range(3):
        spec, module = network("resnet18", seed)
        before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
        _, integer = quantize_model(spec, module, faces(64), QuantizeConfig(weight_range="full"))
        images = to_input(faces(32, 1).images, spec.input)
        with torch.no_grad():
            expected, actual = module(images), integer(images)
        shares.append(float((actual - expected).square().mean().sqrt() / expected.std()))
        assert all(
            torch.equal(before[name], tensor) for name, tensor in module.state_dict().items()
        )
    assert sum(shares) / len(shares) < 0.15


def test_the_unit_of_every_bias_is_input_scale_times_weight_scale():
    spec, module = network("mobilenet_v2")
    _, integer = quantize_model(spec, module, faces(16))
    first, later = (
        integer.get_submodule("features.0.0"),
        integer.get_submodule("features.1.conv.0.0"),
    )
    assert torch.equal(
        first.bias_scale(), torch.tensor(spec.input.scale[0]) * first.weight_scale.float()
    )
    scale = integer.grids.scale[integer.grids.index["features.0.0"]]
    assert torch.equal(later.bias_scale(), scale * later.weight_scale.float())


def test_a_channel_of_zeros_and_one_with_a_huge_bias_survive():
    spec, module = network("resnet18")
    with torch.no_grad():
        module.bn1.weight[:2] = torch.tensor([0.0, 1e-9])
        module.bn1.bias[:2] = torch.tensor([0.5, 2.0])
    _, integer = quantize_model(spec, module, faces(16))
    conv = integer.get_submodule("conv1")
    assert torch.allclose(conv.float_bias()[:2], torch.tensor([0.5, 2.0]), rtol=1e-6)
    assert conv.float_weight()[:2].abs().max() < 1e-6


def test_calibration_is_repeatable_and_reports_passes_and_layers():
    spec, module = network()
    calls = []
    config = QuantizeConfig(calibration_images=20, calibration_batch_size=8)
    first = quantize_model(
        spec, module, faces(50), config, lambda done, total: calls.append((done, total))
    )
    second = quantize_model(spec, module, faces(50), config)
    assert first[0] == second[0]
    tensors = second[1].state_dict()
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in first[1].state_dict().items())
    total = 6 + len(first[0].weights)
    assert calls == [(i, total) for i in range(1, total + 1)]


def test_what_cannot_be_quantised_is_refused():
    spec, module = network()
    with pytest.raises(FertoolError, match="no calibration images"):
        quantize_model(spec, module, faces(0))
    quant, integer = quantize_model(spec, module, faces(8))
    with pytest.raises(FertoolError, match="quantized already"):
        quantize_model(replace(spec, quant=quant), integer, faces(8))
    with torch.no_grad():
        next(module.parameters()).fill_(torch.inf)
    with pytest.raises(FertoolError, match="not finite"):
        quantize_model(spec, module, faces(8))
    with pytest.raises(UsageError):
        QuantizeConfig(calibration_images=0)
    with pytest.raises(UsageError):
        QuantizeConfig(weight_range="wide")
