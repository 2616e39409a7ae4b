from dataclasses import replace

import pytest
import torch
from graphs import narrowed
from torch import nn

from fertool import cost
from fertool.gate_spec import GateSpec
from fertool.models import create, load_model, save_model, with_random_weights
from fertool.models.cascade_network import CascadeNetwork, margins_of
from fertool.spec import InputSpec

INPUT = InputSpec(size=32)


class Scaled(nn.Module):
    """Logits (value, 0) of each image, `scale` times as large, and a mark in a third class."""

    def __init__(self, scale, mark):
        super().__init__()
        self.scale, self.mark = scale, mark
        self.seen = []

    def forward(self, x):
        self.seen.append(len(x))
        value = self.scale * x.mean((1, 2, 3))
        rest = torch.full((len(x),), -10.0)
        return torch.stack([value, torch.zeros(len(x)), rest + self.mark], 1)


def images(values):
    return torch.tensor(values)[:, None, None, None].expand(-1, 1, 2, 2)


def test_wider_profiles_see_only_what_the_narrower_ones_are_unsure_of():
    networks = [Scaled(1.0, 0.0), Scaled(1.0, 1.0), Scaled(1.0, 2.0)]
    module = CascadeNetwork(networks, (0.2, 1.0), (0.2, 0.4, 0.4)).eval()
    x = images([2.0, 0.1, -0.5, 1.0, -0.05])
    logits, profiles = module.route(x)
    # At the threshold itself a profile is sure.
    assert profiles.tolist() == [2, 0, 1, 2, 0]
    assert logits[:, 2].tolist() == [-8, -10, -9, -8, -10]
    assert logits[:, 0].tolist() == x[:, 0, 0, 0].tolist()
    assert [network.seen for network in networks] == [[2], [3], [5]]
    assert torch.equal(module(x), logits)
    assert torch.equal(module.choose(x), profiles)


def test_nothing_wider_runs_where_all_are_sure():
    networks = [Scaled(1.0, 0.0), Scaled(5.0, 1.0)]
    module = CascadeNetwork(networks, (1.0,), (0.5, 0.5)).eval()
    assert module.choose(images([1.0, -3.0])).tolist() == [1, 1]
    assert networks[0].seen == []


def test_the_margin_is_that_of_the_two_largest_logits():
    assert margins_of(torch.tensor([[1.0, 4.0, 3.5], [2.0, 2.0, -9.0]])).tolist() == [0.5, 0.0]


def test_a_file_brings_thresholds_back_and_counts_the_narrow_runs_too(tmp_path):
    spec, wide = create("micro_expnet", {"width_mult": 0.25}, INPUT, ("angry", "happy", "sad"))
    narrow = with_random_weights(narrowed(wide, "features.11.block.0.0", 8))
    gates = GateSpec((wide.graph, narrow.graph), 0, (0.25, 0.75), thresholds=(0.5,))
    module = CascadeNetwork([wide, narrow], gates.thresholds, gates.shares).eval()
    saved = save_model(tmp_path / "c.pt", replace(spec, gates=gates), module)
    parts = [cost.count(network, INPUT) for network in (wide, narrow)]
    assert saved.macs == round(0.25 * (parts[0].macs + parts[1].macs) + 0.75 * parts[1].macs)
    assert saved.params == parts[0].params + parts[1].params
    assert cost.profile_macs(module, INPUT) == (
        parts[0].macs + parts[1].macs,
        parts[1].macs,
    )
    again, loaded = load_model(tmp_path / "c.pt")
    assert again == saved
    assert again.gates.kind == "cascade"
    x = torch.randn(5, 1, 32, 32)
    torch.testing.assert_close(loaded(x), module(x))


@pytest.mark.parametrize("threshold", [0.0, 1e9])
def test_the_ends_of_the_thresholds_are_the_profiles_themselves(threshold):
    networks = [Scaled(1.0, 0.0), Scaled(2.0, 1.0)]
    module = CascadeNetwork(networks, (threshold,), (0.5, 0.5)).eval()
    x = images([0.0, 1.0, -2.0])
    alone = networks[0 if threshold else 1](x)
    assert torch.equal(module(x), alone)
