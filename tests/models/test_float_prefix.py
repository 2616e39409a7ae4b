from dataclasses import replace

import pytest
from graphs import network_of
from torch import nn

from fertool.graph.folding import fold_for_inference
from fertool.models import create
from fertool.models.float_prefix import plan_quantizers
from fertool.models.quantized import QuantConv2d, build_quantized
from fertool.models.quantizer_points import find_quantizer_points
from fertool.spec import InputSpec, QuantSpec, WeightQuant

INPUT = InputSpec(1, 48)


def graph_of(arch, **args):
    return fold_for_inference(create(arch, args, INPUT, ("a", "b"))[1])


def floats(network):
    every, rounded = find_quantizer_points(network.graph, INPUT), plan_quantizers(network, INPUT)
    # Whatever an integer layer reads is rounded.
    assert {*rounded.layer_inputs.values()} - {None} <= {point.name for point in rounded.points}
    assert {*rounded.layer_inputs} <= {*every.layer_inputs}
    return {*every.layer_inputs} - {*rounded.layer_inputs}


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "mobilenet_v3_large", "micro_expnet"])
def test_stem_and_first_block_of_mobilenet_v3_stay_float(arch):
    found = floats(graph_of(arch))
    assert "features.0.0" in found
    assert {name.split(".")[1] for name in found} == {"0", "1"}


@pytest.mark.parametrize(
    "arch", ["mobilenet_v2", "resnet18", "shufflenet_v2_x1_0", "efficientnet_b0", "nano_resnet"]
)
def test_wide_stems_and_those_without_products_are_integer(arch):
    assert not floats(graph_of(arch))


def test_a_network_of_few_channels_is_no_entrance():
    small = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 3), nn.Hardswish(), nn.Conv2d(8, 32, 3)
    )
    assert not floats(network_of(small, (1, 48, 48)))
    wide = nn.Sequential(*small, nn.Hardswish(), nn.Conv2d(32, 800, 3))
    assert floats(network_of(wide, (1, 48, 48))) == {"0", "2"}


def test_what_is_read_again_later_is_rounded_before():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner = (
                nn.Sequential(nn.Conv2d(1, 8, 3), nn.Hardswish()),
                nn.Conv2d(8, 8, 1),
            )
            self.wide, self.last = nn.Conv2d(8, 2048, 1), nn.Conv2d(8, 2048, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.wide(self.inner(x)) + self.last(x)

    assert floats(network_of(Skipping(), (1, 48, 48))) == {"stem.0"}


def test_files_with_an_integer_entrance_still_load():
    spec, module = create("mobilenet_v3_small", {"width_mult": 0.25}, INPUT, ("a", "b"))
    plan = find_quantizer_points(fold_for_inference(module).graph, INPUT)
    quant = QuantSpec(
        {name: WeightQuant((8,)) for name in plan.layer_inputs}, {s.name: 8 for s in plan.points}
    )
    net = build_quantized(module, replace(spec, quant=quant))
    assert isinstance(net.get_submodule("features.0.0"), QuantConv2d)
