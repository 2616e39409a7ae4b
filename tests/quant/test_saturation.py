import copy

import numpy as np
import pytest
import torch
from graphs import network_of
from torch import nn
from torch.nn import functional as F

from fertool.models.quantized import QuantConv2d, QuantLinear, build_quantized
from fertool.models.quantizer_points import find_quantizer_points
from fertool.quant.saturation import can_saturate, simulate_saturation
from fertool.spec import InputSpec, QuantSpec, Spec, WeightQuant

INPUT = InputSpec(1, 6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.grouped = nn.Conv2d(6, 4, 3, stride=2, padding=1, groups=2)
        self.depthwise = nn.Conv2d(4, 4, 3, padding=1, groups=4)
        self.head = nn.Linear(4 * 9, 3)

    def forward(self, x):
        return self.head(self.depthwise(self.grouped(self.first(x))).flatten(1))


def integer_net(limit):
    torch.manual_seed(0)
    network = network_of(Net(), (1, 6, 6))
    plan = find_quantizer_points(network.graph, INPUT)
    quant = QuantSpec(
        {name: WeightQuant((8,)) for name in plan.layer_inputs}, {s.name: 8 for s in plan.points}
    )
    net = build_quantized(
        network, Spec("net", {}, network.graph, INPUT, ("a", "b", "c"), quant=quant)
    )
    net.grids.scale.fill_(40.0)
    net.grids.zero_point.fill_(100)
    for layer in net.modules():
        if isinstance(layer, QuantConv2d | QuantLinear):
            layer.weight.random_(-limit, limit + 1)
            layer.bias.random_(-50, 50)
    return net


def saturated_sum(integers, weights):
    """One output, pair by pair."""
    integers, weights = (
        np.append(v, np.zeros(len(v) % 2)).astype(int) for v in (integers, weights)
    )
    pairs = (integers * weights).reshape(-1, 2).sum(1)
    return int(np.clip(pairs, -32768, 32767).sum()), int(pairs.sum())


def brute_force(layer, values, scale, zero_point):
    """The layer's output with saturated sums, element by element."""
    exact = layer(values)
    result, padded = exact.clone(), values
    if isinstance(layer, QuantConv2d):
        padded = F.pad(values, (layer.padding[1],) * 2 + (layer.padding[0],) * 2)
    integers = (padded / scale).round().clamp(-zero_point, 255 - zero_point) + zero_point
    for index in np.ndindex(*exact.shape):
        channel = index[1]
        if isinstance(layer, QuantLinear):
            read, weights = integers[index[0]], layer.weight[channel]
        else:
            size, group = layer.weight.shape[1], channel // (layer.out_channels // layer.groups)
            top, left = (place * step for place, step in zip(index[2:], layer.stride, strict=True))
            window = integers[
                index[0], group * size : (group + 1) * size, top : top + 3, left : left + 3
            ]
            read, weights = (
                each.permute(1, 2, 0).flatten() for each in (window, layer.weight[channel])
            )
        saturated, whole = saturated_sum(read.numpy(), weights.numpy())
        result[index] += (saturated - whole) * scale * layer.weight_scale[channel].item()
    return result


@pytest.mark.parametrize(("name", "zero_point"), [("first", 129), ("grouped", 100), ("head", 100)])
def test_pairs_saturate_as_added_one_by_one(name, zero_point):
    net = integer_net(127)
    layer = net.get_submodule(name)
    scale = float(layer.input_scale())
    shape = (
        (2, layer.in_features) if isinstance(layer, QuantLinear) else (2, layer.in_channels, 6, 6)
    )
    values = (torch.randint(0, 256, shape).float() - zero_point) * scale
    expected = brute_force(layer, values, scale, zero_point)
    assert not torch.allclose(expected, layer(values))
    actual = simulate_saturation(net, INPUT).get_submodule(name)(values)
    assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-2 * scale)


def test_small_weights_and_depthwise_layers_do_not_saturate():
    net = integer_net(127)
    assert can_saturate(net)
    images = (torch.randint(0, 256, (4, 1, 6, 6)).float() - 129) * INPUT.scale[0]
    assert not torch.equal(simulate_saturation(net, INPUT)(images), net(images))
    values = (torch.randint(0, 256, (2, 4, 3, 3)).float() - 100) * 40
    assert torch.equal(
        simulate_saturation(net, INPUT).get_submodule("depthwise")(values),
        net.get_submodule("depthwise")(values),
    )
    portable = integer_net(64)
    assert not can_saturate(portable)
    before = copy.deepcopy(portable)
    assert torch.equal(simulate_saturation(portable, INPUT)(images), before(images))
