import copy
from dataclasses import replace
from functools import partial

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from graphs import network_of
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

from fertool import cost
from fertool.errors import FertoolError
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.models.quantized import (
    ActivationQParams,
    QuantConv2d,
    Quantizer,
    QuantLinear,
    build_quantized,
)
from fertool.models.quantizer_points import find_quantizer_points
from fertool.spec import InputSpec, QuantSpec, Spec, WeightQuant


class Net(nn.Module):
    """Residual addition, chunk, concatenation, squeeze-and-excitation and h-swish."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU()
        )
        self.branch = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.pool = nn.MaxPool2d(2)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.last, self.swish = nn.Conv2d(8, 8, 1), nn.Hardswish()
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        still, moving = x.chunk(2, dim=1)
        x = torch.cat([still, self.branch(moving)], dim=1)
        x = self.pool(x)
        x = x * F.hardsigmoid(self.excite(F.relu(self.squeeze(x.mean([2, 3], keepdim=True)))))
        x = F.relu(x + self.swish(self.last(x)))
        return self.head(x.mean([2, 3]))


IMAGE = (1, 8, 8)


def plan_of(module, input=InputSpec(1, 8)):
    """Return the quantizer points of a hand-written module."""
    return find_quantizer_points(
        fold_for_inference(network_of(module, (input.channels, input.size, input.size))).graph,
        input,
    )


def spec_for(network, input=InputSpec(1, 8)):
    plan = find_quantizer_points(fold_for_inference(network).graph, input)
    quant = QuantSpec(
        {name: WeightQuant((8,)) for name in plan.layer_inputs}, {s.name: 8 for s in plan.points}
    )
    return Spec("net", {}, network.graph, input, ("a", "b", "c"), quant=quant)


def onnx_round_trip(values, scale, zero_point):
    """QuantizeLinear and DequantizeLinear as ONNX Runtime computes them."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero_point"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero_point"], ["y"]),
    ]
    constants = [
        onnx.numpy_helper.from_array(np.float32(scale), "scale"),
        onnx.numpy_helper.from_array(np.uint8(zero_point), "zero_point"),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [None]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    return onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": values.numpy()})[
        0
    ]


@pytest.mark.parametrize(
    ("scale", "zero_point"), [(0.5, 3), (0.0371, 128), (6 / 255, 0), (1e-6, 255)]
)
def test_rounding_is_that_of_onnx_runtime(scale, zero_point):
    grids = ActivationQParams({"a": 8, "b": 8})
    grids.scale[1], grids.zero_point[1] = scale, zero_point
    quantizer = Quantizer(grids, "b")
    # Ties at every half step, both ends of the range and far outside.
    ties = (torch.arange(-600, 600) / 2) * torch.tensor(scale)
    values = torch.cat(
        [ties, torch.randn(2000, generator=torch.Generator().manual_seed(0)) * scale * 100]
    )
    assert np.array_equal(quantizer(values).numpy(), onnx_round_trip(values, scale, zero_point))


def test_ties_go_to_even_and_the_ends_saturate():
    quantizer = Quantizer(ActivationQParams({"a": 8}), "a")
    values = torch.tensor([0.5, 1.5, 2.5, -3.0, 254.5, 300.0])
    assert quantizer(values).tolist() == [0.0, 2.0, 2.0, 0.0, 254.0, 255.0]


def test_sites_follow_what_a_runtime_can_fuse():
    found = plan_of(Net())
    points = {point.name: set(point.nodes) for point in found.points}
    # One grid from the stem through chunk, concatenation and pooling; the ReLUs close their
    # convolutions' points.
    assert points["stem.0"] == {"stem.2", "chunk.0", "chunk.1", "branch.2", "cat", "pool"}
    assert points["squeeze"] == {"relu"}
    assert points["last"] == {"last"}
    assert points["swish"] == {"swish"}
    assert points["add"] == {"relu.1"}
    assert "head" not in points
    assert set(found.layer_inputs.values()) >= {None, "stem.0", "squeeze"}


def test_what_only_gates_read_is_a_gated_site_and_the_gate_itself_is_not_rounded():
    found = {point.name: point for point in plan_of(Net()).points}
    assert found["last"].gate_range == (-3, float("inf"))
    assert found["excite"].gate_range == (-3, 3)
    assert {name for name, point in found.items() if point.gate_range} == {"last", "excite"}
    nodes = {node for point in found.values() for node in point.nodes}
    assert "mul" in nodes
    assert "hardsigmoid" not in nodes

    class Shared(Net):
        def forward(self, x):
            squeezed = self.excite(F.relu(self.squeeze(self.stem(x))))
            return self.head((squeezed + F.hardsigmoid(squeezed)).mean([2, 3]))

    shared = plan_of(Shared()).points
    assert not any(point.gate_range for point in shared)
    assert any("hardsigmoid" in point.nodes for point in shared)


def test_silu_rounds_its_sigmoid_to_255ths():
    network = network_of(
        nn.Sequential(nn.Conv2d(1, 2, 1), nn.SiLU(), nn.Flatten(), nn.Linear(128, 3)), IMAGE
    )
    net = build_quantized(network, spec_for(network))
    seen = {}
    net.listeners.update(
        {name: partial(seen.__setitem__, name) for name in ("0", "1.sigmoid", "1")}
    )
    net.grids.scale.fill_(0.05)
    net.grids.zero_point.fill_(128)
    net.layer("0").weight.fill_(100)
    net.layer("0").weight_scale.fill_(0.02)
    images = torch.linspace(-1.5, 1.5, 64).reshape(1, 1, 8, 8)
    net(images)
    values, gates = seen["0"].double(), seen["1.sigmoid"].double()
    assert len(values.unique()) > 50
    assert torch.allclose(
        gates, torch.round(torch.sigmoid(values) * 255) / 255, rtol=1e-6, atol=1e-6
    )
    assert torch.equal(seen["1"], net.quantizers["1"](seen["0"] * seen["1.sigmoid"]))


def test_pixels_of_unequal_channels_get_a_site_of_their_own():
    module = nn.Sequential(nn.Conv2d(3, 2, 1), nn.Flatten(), nn.Linear(2, 2))
    equal = InputSpec(3, 1, (128 / 255,) * 3, (0.25,) * 3)
    unequal = InputSpec(3, 1, (128 / 255, 120 / 255, 100 / 255), (0.25,) * 3)
    assert plan_of(module, equal).layer_inputs["0"] is None
    assert plan_of(module, unequal).layer_inputs["0"] == "input"


def test_integer_layers_compute_with_their_integers():
    generator = torch.Generator().manual_seed(0)
    conv, linear = nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), nn.Linear(5, 3)
    for layer, values in (
        (QuantConv2d(conv, 0.03), torch.randn(2, 4, 7, 7)),
        (QuantLinear(linear, 0.03), torch.randn(2, 5)),
    ):
        layer.weight.random_(-64, 65, generator=generator)
        layer.bias.random_(-5000, 5000, generator=generator)
        layer.weight_scale.uniform_(0.01, 0.02, generator=generator)
        weight = layer.weight.double() * layer.weight_scale.double().reshape(
            -1, *[1] * (layer.weight.dim() - 1)
        )
        bias = layer.bias.double() * layer.weight_scale.double() * 0.03
        if isinstance(layer, QuantLinear):
            expected = F.linear(values.double(), weight, bias)
        else:
            expected = F.conv2d(values.double(), weight, bias, stride=2, padding=1, groups=2)
        assert torch.allclose(layer(values).double(), expected, rtol=1e-5, atol=1e-5)


def test_the_structure_is_rebuilt_without_storage_and_costs_as_much_as_before():
    module = network_of(Net(), IMAGE)
    spec = spec_for(module)
    real = build_quantized(module, spec)
    empty = build_quantized(Network(spec.graph, IMAGE), spec)
    shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in real.state_dict().items()}
    assert shapes == {
        name: (tensor.dtype, tensor.shape) for name, tensor in empty.state_dict().items()
    }
    assert {t.device.type for t in empty.state_dict().values()} == {"meta"}
    copied = copy.deepcopy(real)
    assert copied.grids is not real.grids
    copied.grids.scale.fill_(0.5)
    assert (copied.get_submodule("head").bias_scale() == 0.5).all()
    assert (real.get_submodule("head").bias_scale() == 1.0).all()
    assert cost.count_parameters(copied) == cost.count_parameters(real)
    assert shapes["stem.0.weight"][0] == torch.int8
    assert shapes["stem.0.bias"][0] == torch.int32
    before, after = cost.count(module, spec.input), cost.count(real, spec.input)
    assert (before.params, before.macs) == (after.params, after.macs)


def test_a_spec_of_another_network_is_refused_with_all_names():
    network = network_of(Net(), IMAGE)
    spec = spec_for(network)
    quant = QuantSpec({"nose": WeightQuant((8,))}, {"mouth": 8})
    with pytest.raises(FertoolError, match="no layer nose, no activation mouth"):
        build_quantized(network, replace(spec, quant=quant))
