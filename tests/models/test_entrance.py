import pytest
import torch
from fertool.models.folding import folded
from torch import nn

from fertool.models import create
from fertool.models.entrance import rounded_sites
from fertool.models.quantized import QuantConv2d, quantized_module
from fertool.models.sites import find_sites
from fertool.spec import InputSpec, QuantSpec, Spec, WeightQuant

INPUT = InputSpec(1, 48)


def graph_of(arch, **args):
    with torch.device("meta"):
        return folded(create(arch, args, INPUT, ("a", "b"))[1])


def floats(graph_module):
    every, rounded = find_sites(graph_module, INPUT), rounded_sites(graph_module, INPUT)
    # Whatever an integer layer reads is rounded.
    assert {*rounded.layer_inputs.values()} - {None} <= {site.name for site in rounded.sites}
    assert {*rounded.layer_inputs} <= {*every.layer_inputs}
    return {*every.layer_inputs} - {*rounded.layer_inputs}


@pytest.mark.parametrize("arch", ["mobilenet_v3_small", "mobilenet_v3_large", "micro_expnet"])
def test_stem_and_first_block_of_mobilenet_v3_stay_float(arch):
    found = floats(graph_of(arch))
    assert "features.0.0" in found
    assert {name.split(".")[1] for name in found} == {"0", "1"}


@pytest.mark.parametrize("arch", ["mobilenet_v2", "resnet18", "shufflenet_v2_x1_0", "efficientnet_b0", "nano_resnet"])
def test_wide_stems_and_those_without_products_are_integer(arch):
    assert not floats(graph_of(arch))


def test_a_network_of_few_channels_is_no_entrance():
    small = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Hardswish(), nn.Conv2d(8, 8, 3), nn.Hardswish(), nn.Conv2d(8, 32, 3))
    assert not floats(folded(small))
    wide = nn.Sequential(*small, nn.Hardswish(), nn.Conv2d(32, 800, 3))
    assert floats(folded(wide)) == {"0", "2"}


def test_what_is_read_again_later_is_rounded_before():
    class Skipping(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.inner = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Hardswish()), nn.Conv2d(8, 8, 1)
            self.wide, self.last = nn.Conv2d(8, 2048, 1), nn.Conv2d(8, 2048, 1)

        def forward(self, x):
            x = self.stem(x)
            return self.wide(self.inner(x)) + self.last(x)

    assert floats(folded(Skipping())) == {"stem.0"}


def test_files_with_an_integer_entrance_still_load():
    _, module = create("mobilenet_v3_small", {"width_mult": 0.25}, INPUT, ("a", "b"))
    sites = find_sites(folded(module), INPUT)
    quant = QuantSpec({name: WeightQuant((8,)) for name in sites.layer_inputs}, {s.name: 8 for s in sites.sites})
    net = quantized_module(module, Spec("mobilenet_v3_small", {}, {}, INPUT, ("a", "b"), quant=quant))
    assert isinstance(net.get_submodule("features.0.0"), QuantConv2d)
