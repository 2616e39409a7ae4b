import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fertool.errors import UsageError
from fertool.graph.capture import capture
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.surgery import remove_channels, resize, surviving_rows
from fertool.pruning.reconstruction import reconstruct
from fertool.spec import InputSpec

PLAIN = InputSpec(size=8, mean=(0.0,), std=(1.0,))


def images(n=64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)


class Net(nn.Module):
    """Two convolutions and a linear layer, of which the first one's channels can go."""

    def __init__(self, width=6, stride=1, padding=1):
        super().__init__()
        self.one = nn.Conv2d(1, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.two = nn.Conv2d(width, 5, 3, stride=stride, padding=padding)
        self.pool, self.flat = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.end = nn.Linear(5, 3)

    def forward(self, x):
        return self.end(
            self.flat(self.pool(torch.relu(self.two(torch.relu(self.norm(self.one(x)))))))
        )


def a_net(width=6, seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Net(width, **options)
        nn.init.uniform_(net.norm.weight, 0.5, 1.5)
        net.norm.running_mean.uniform_(-0.1, 0.1)
    return capture(net.eval(), (1, 8, 8)).network((1, 8, 8))


def without(net, kept):
    """Return the net with the `kept` channels of its first layer, and the rows of all layers."""
    graph = trace_channels(net)
    skeleton = resize(net, graph, find_groups(graph), {"one": len(kept), "two": 5})
    pruned = trace_channels(skeleton)
    kept = {"one": tuple(kept), "two": tuple(range(5)), "end": tuple(range(3))}
    return remove_channels(net, graph, skeleton, pruned, kept), surviving_rows(graph, pruned, kept)


@pytest.mark.parametrize(("stride", "padding"), [(1, 1), (2, 0), (2, 1)])
def test_a_layer_becomes_the_least_squares_fit_to_its_original_output(stride, padding, monkeypatch):
    monkeypatch.setattr("fertool.models.sampling.RIDGE", 0.0)
    monkeypatch.setattr("fertool.pruning.reconstruction.POSITIONS", 64)
    net = a_net(stride=stride, padding=padding)
    smaller, rows = without(net, [0, 2, 3, 5])
    reconstruct(net, smaller, trace_channels(net), rows, images(), PLAIN)
    with torch.no_grad():
        arriving = torch.relu(net.norm(net.one(images().float() / 255)))
        patches = nn.functional.unfold(arriving[:, [0, 2, 3, 5]], 3, padding=padding, stride=stride)
        x = patches.transpose(1, 2).flatten(0, 1).double().numpy()
        y = net.two(arriving).flatten(2).transpose(1, 2).flatten(0, 1).double().numpy()
    solution, *_ = np.linalg.lstsq(np.hstack([x, np.ones((len(x), 1))]), y, rcond=None)
    found = (
        x @ smaller.two.weight.detach().flatten(1).T.double().numpy()
        + smaller.two.bias.detach().double().numpy()
    )
    np.testing.assert_allclose(found, np.hstack([x, np.ones((len(x), 1))]) @ solution, atol=1e-4)


@torch.no_grad()
def test_what_was_redundant_is_not_missed(monkeypatch):
    monkeypatch.setattr("fertool.models.sampling.RIDGE", 1e-6)
    net = a_net()
    with torch.no_grad():
        for tensor in (
            net.one.weight,
            net.norm.weight,
            net.norm.bias,
            net.norm.running_mean,
            net.norm.running_var,
        ):
            tensor[4] = tensor[1]
    smaller, rows = without(net, [0, 1, 2, 3, 5])
    shown = images(16, seed=1).float() / 255
    missing = (smaller(shown) - net(shown)).abs().max()
    reconstruct(net, smaller, trace_channels(net), rows, images(256), PLAIN)
    assert (smaller(shown) - net(shown)).abs().max() < missing / 20


def test_an_uncut_network_stays_as_it_is():
    net = a_net()
    same, rows = without(net, list(range(6)))
    reconstruct(net, same, trace_channels(net), rows, images(), PLAIN)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(same.state_dict()[name], tensor, atol=1e-4, rtol=1e-4)


def test_statistics_follow_what_arrives():
    net = a_net()
    one, norm = net.one, net.norm
    other = copy.deepcopy(net)
    with torch.no_grad():
        other.one.weight *= 3
    # The first layer is not reconstructed itself, as a depthwise one would not be.
    seen = images().float() / 255
    rows = {
        "norm": torch.arange(6),
        "two": torch.arange(5),
        "end": torch.arange(3),
        "one": torch.arange(6),
    }
    graph = trace_channels(net)
    kept = replace(graph, layers=tuple(layer for layer in graph.layers if layer.name != "one"))
    reconstruct(net, other, kept, rows, images(), PLAIN)
    with torch.no_grad():
        torch.testing.assert_close(
            other.norm(other.one(seen)), norm(one(seen)), atol=1e-3, rtol=1e-3
        )


def test_too_few_images_are_refused():
    net = a_net()
    smaller, rows = without(net, [0, 1])
    with pytest.raises(UsageError, match="16 images"):
        reconstruct(net, smaller, trace_channels(net), rows, images(10), PLAIN)
