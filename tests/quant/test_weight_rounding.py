import itertools

import numpy as np
import pytest
import torch
from torch import nn

from fertool.config.quantization import QuantizeConfig
from fertool.data.dataset import FaceDataset
from fertool.models import create
from fertool.models.regression import measure_moments, ordered_factor_, regress_
from fertool.models.sampling import input_columns
from fertool.quant import quantize_model
from fertool.quant.weight_rounding import gptq_integers, rounding_order
from fertool.spec import InputSpec
from fertool.training import predict_logits

CLASSES = ("a", "b", "c", "d")


def rounded(weight, step, limit, xx):
    """Return the integers of GPTQ, inputs of large variance first."""
    order = rounding_order(xx.diagonal(dim1=1, dim2=2))
    return gptq_integers(weight, step, limit, order, ordered_factor_(xx.clone(), order))


def squared(weight, integers, step, xx):
    rest = weight - integers * step
    return float(rest @ xx @ rest)


@pytest.mark.parametrize("seed", range(5))
def test_rounding_with_compensation_comes_close_to_the_best_integers(seed):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(200, 6, generator=generator, dtype=torch.float64)
    x[:, 1:] += 1.5 * x[:, :1]  # inputs that can make up for each other
    xx = x.T @ x / 200
    weight = torch.randn(6, generator=generator, dtype=torch.float64)
    step, limit = weight.abs().max() / 3, 3
    bound = torch.full((1, 1), limit)
    integers = rounded(weight[None, None], step.reshape(1, 1), bound, xx[None])[0, 0]
    assert integers.abs().max() <= limit
    ours = squared(weight, integers, step, xx)
    nearest = squared(weight, (weight / step).round().clamp(-limit, limit), step, xx)
    grid = torch.tensor(
        list(itertools.product(range(-limit, limit + 1), repeat=6)), dtype=torch.float64
    )
    rest = weight - grid * step
    best = float(((rest @ xx) * rest).sum(1).min())
    assert best - 1e-12 <= ours
    assert ours <= nearest + 1e-12
    assert ours < best + 0.5 * (nearest - best) + 1e-9


def test_with_independent_inputs_each_is_rounded_to_the_nearest():
    weight = torch.randn(2, 3, 40, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    xx = torch.eye(40, dtype=torch.float64).expand(2, 40, 40)
    step = torch.full((2, 3), 0.2, dtype=torch.float64)
    integers = rounded(weight, step, torch.full((2, 3), 7), xx)
    assert torch.equal(integers, (weight / 0.2).round().clamp(-7, 7))


def test_integers_are_those_of_equations_6_and_7():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(300, 40, generator=generator, dtype=torch.float64)
    x[:, 1:] += x[:, :1] * torch.linspace(0.5, 2, 39)
    xx = x.T @ x / 300
    weight = torch.randn(3, 40, generator=generator, dtype=torch.float64)
    found = rounded(weight[None], torch.full((1, 3), 0.3), torch.full((1, 3), 7), xx[None])[0]

    hessian = xx + 0.01 * xx.diagonal().mean() * torch.eye(40)
    order = xx.diagonal().argsort(descending=True)
    rest = order.tolist()
    remaining = weight.clone()
    wanted = torch.zeros_like(weight)
    for column in order.tolist():
        inverse = torch.linalg.inv(hessian[rest][:, rest])
        at = rest.index(column)
        wanted[:, column] = (remaining[:, column] / 0.3).round().clamp(-7, 7)
        error = remaining[:, column] - 0.3 * wanted[:, column]
        remaining[:, rest] -= torch.outer(error, inverse[at] / inverse[at, at])
        rest.pop(at)
    assert torch.equal(found, wanted)


@pytest.mark.parametrize("level", [1.0, 1e3])
def test_moments_are_those_of_numpy(level, monkeypatch):
    monkeypatch.setattr("fertool.models.regression._ROWS", 7)
    monkeypatch.setattr("fertool.models.regression._VALUES", 2000)
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(6, 4, 3, padding=1, groups=2)
    x = level + torch.randn(40, 6, 5, 5, generator=generator)
    y = torch.randn(40, 4, 25, generator=generator)
    positions = torch.arange(25)
    found = measure_moments(layer, x.split(16), y.split(16), positions)
    columns = input_columns(layer, x, positions).double().numpy()
    for group in range(2):
        outputs = y[:, 2 * group : 2 * group + 2].transpose(0, 1).flatten(1).double().numpy()
        joint = np.cov(np.vstack([columns[group], outputs]), bias=True)
        np.testing.assert_allclose(found.xx[group], joint[:27, :27], atol=1e-5 * level)
        np.testing.assert_allclose(found.yx[group], joint[27:, :27], atol=1e-5 * level)
        np.testing.assert_allclose(found.x_mean[group], columns[group].mean(1), rtol=1e-5)


@pytest.mark.parametrize("fan_in", [5, 130, 300])
def test_blocks_only_save_time(fan_in, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2 * fan_in, fan_in, generator=generator, dtype=torch.float64)
    weight = torch.randn(1, 4, fan_in, generator=generator, dtype=torch.float64)
    arguments = (
        weight,
        torch.full((1, 4), 0.3, dtype=torch.float64),
        torch.full((1, 4), 7),
        (x.T @ x)[None],
    )
    whole = rounded(*arguments)
    monkeypatch.setattr("fertool.quant.weight_rounding._BLOCK", 1000)
    assert torch.equal(whole, rounded(*arguments))


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(6, 8, 3, stride=2, padding=1),
        nn.Conv2d(6, 6, 3, padding=1, groups=6),
        nn.Conv2d(6, 8, 3, padding=2, dilation=2, groups=2),
        nn.Conv2d(6, 4, 1),
        nn.Linear(6, 5),
    ],
    ids=["strided", "depthwise", "grouped", "pointwise", "linear"],
)
def test_patches_times_weights_are_the_output(layer):
    x = torch.randn(3, 6) if isinstance(layer, nn.Linear) else torch.randn(3, 6, 9, 9)
    output = layer(x).detach()
    flat = output.flatten(2) if output.dim() > 2 else output.unsqueeze(2)
    places = torch.arange(0, flat.shape[2], 2)
    seen = input_columns(layer, x, places)
    groups = len(seen)
    weight = layer.weight.detach().reshape(groups, -1, seen.shape[1])
    found = torch.einsum("gfn,grf->ngr", seen, weight).flatten(1) + layer.bias.detach()
    assert torch.allclose(found, flat[:, :, places].permute(0, 2, 1).flatten(0, 1), atol=1e-5)


@pytest.mark.parametrize("arch", ["nano_resnet", "mobilenet_v3_small", "shufflenet_v2_x0_5"])
def test_gptq_with_few_bits_predicts_what_the_float_network_predicts(arch):
    torch.manual_seed(0)
    spec, module = create(arch, {"width_mult": 0.25}, InputSpec(1, 32), CLASSES)
    images = torch.randint(0, 256, (96, 1, 4, 4), dtype=torch.uint8)
    images = images.repeat_interleave(8, 2).repeat_interleave(8, 3)
    data = FaceDataset(images, torch.arange(96) % 4, CLASSES, "train", "0" * 64)
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = None
        module.train()(images.float() / 128 - 1)
    float_logits = predict_logits(module.eval(), data, spec.input)
    error = {}
    for rounding in ("nearest", "gptq", "coordinate-descent"):
        layers = {n: p for n, p in module.named_modules() if isinstance(p, nn.Conv2d | nn.Linear)}
        bits = {name: (3,) * len(layer.weight) for name, layer in layers.items()}
        _, integer = quantize_model(
            spec, module, data, QuantizeConfig(rounding=rounding), bits=bits
        )
        error[rounding] = float(
            (predict_logits(integer, data, spec.input) - float_logits).square().mean()
        )
    assert error["gptq"] < 0.5 * error["nearest"]
    assert error["coordinate-descent"] < 0.5 * error["nearest"]


@pytest.mark.parametrize("level", [1.0, 30.0, 1e4])
def test_inputs_that_never_change_are_no_trouble(level):
    layer = nn.Conv2d(6, 4, 1)
    x = level * torch.rand(1, 6, 1, 1).expand(64, 6, 5, 5)
    outputs = layer(x).detach().flatten(2)
    moments = measure_moments(layer, x.split(16), outputs.split(16), torch.arange(25))
    assert moments.xx.abs().max() <= 1e-9 * level**2
    order = torch.arange(6)[None]
    wanted, factor = regress_(layer.weight.detach().reshape(1, 4, 6), moments, order)
    step, limit = torch.full((1, 4), 0.1, dtype=torch.float64), torch.full((1, 4), 7)
    integers = gptq_integers(wanted, step, limit, order, factor)
    assert integers.isfinite().all()
    assert torch.allclose(moments.x_mean[0], x[0, :, 0, 0].double(), rtol=1e-5)
