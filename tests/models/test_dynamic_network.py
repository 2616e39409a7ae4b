from dataclasses import replace

import pytest
import torch
from graphs import narrowed
from torch import nn

from fertool import cost
from fertool.gate_spec import GateSpec
from fertool.models import create, load_model, save_model, with_random_weights
from fertool.models.dynamic_network import DynamicNetwork, ImageGate
from fertool.spec import InputSpec

INPUT = InputSpec(size=32)
CLASSES = ("angry", "happy", "sad")


class ByBrightness(nn.Module):
    """Sends dark images to profile 0, bright ones to the last, and counts what it does."""

    def __init__(self, profiles):
        super().__init__()
        self.profiles = profiles

    def forward(self, x):
        return nn.functional.one_hot(
            (x.mean((1, 2, 3)) > 0).long() * (self.profiles - 1), self.profiles
        ).float()


def a_network(value):
    network = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    nn.init.zeros_(network[1].weight)
    nn.init.constant_(network[1].bias, value)
    return network


def test_every_image_goes_through_its_own_profile_alone():
    seen = {}
    networks = [a_network(value) for value in range(3)]
    for index, network in enumerate(networks):
        network.register_forward_hook(
            lambda module, args, out, index=index: seen.update({index: len(out)})
        )
    module = DynamicNetwork(ByBrightness(3), networks, (0.5, 0, 0.5)).eval()
    x = torch.tensor([-1.0, 1, 1, -1, 1])[:, None, None, None].expand(5, 1, 2, 2)
    assert module(x)[:, 0].tolist() == [0, 2, 2, 0, 2]
    assert seen == {0: 2, 2: 3}


def test_the_gate_has_at_most_2500_parameters_and_knows_light_edges_and_texture():
    gate = ImageGate(3)
    assert sum(p.numel() for p in gate.parameters()) == 2159
    flat = torch.full((1, 1, 48, 48), 0.5)
    striped = flat.clone()
    striped[..., ::8] = -2.0
    light, usual, across, down, texture = (gate.statistics(flat).reshape(5, 9)[:, 4]).tolist()
    assert (light, usual) == (0.5, 0.5)
    assert across == down == texture == 0
    stripes = gate.statistics(striped).reshape(5, 9)[:, 4]
    assert stripes[2] > 0.1 > stripes[3].abs()
    assert stripes[4] > 0.1


@pytest.mark.parametrize(("channels", "size"), [(1, 48), (3, 96), (1, 50), (3, 224)])
def test_images_of_every_shape_have_the_same_statistics(channels, size):
    images = torch.randn(2, channels, size, size)
    assert ImageGate(3).statistics(images).shape == (2, 45)


def test_a_folded_gate_answers_the_same():
    gate = ImageGate(3)
    gate(torch.randn(64, 1, 48, 48))
    gate.eval()
    x = torch.randn(8, 1, 48, 48)
    torch.testing.assert_close(gate.folded()(x), gate(x), atol=1e-5, rtol=1e-5)


def test_a_file_brings_all_profiles_back_and_counts_the_mean_work(tmp_path):
    spec, wide = create("micro_expnet", {"width_mult": 0.25}, INPUT, CLASSES)
    narrow = with_random_weights(narrowed(wide, "features.11.block.0.0", 8))
    gates = GateSpec((wide.graph, narrow.graph), 44, (0.25, 0.75))
    module = DynamicNetwork(ImageGate(2), [wide, narrow], gates.shares).eval()
    path = tmp_path / "d.pt"
    saved = save_model(path, replace(spec, gates=gates), module)
    gate, parts = (
        cost.count(module.gate, INPUT),
        [cost.count(network, INPUT) for network in (wide, narrow)],
    )
    assert saved.macs == gate.macs + round(0.25 * parts[0].macs + 0.75 * parts[1].macs)
    assert saved.params == gate.params + parts[0].params + parts[1].params
    again, loaded = load_model(path)
    assert again == saved
    x = torch.randn(5, 1, 32, 32)
    torch.testing.assert_close(loaded(x), module(x))
