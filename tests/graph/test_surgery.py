"""Removing channels equals masking them, whatever hangs together."""

import pytest
import torch
from masking import masked
from small_networks import IMAGE, NETWORKS, small_network

from fertool import cost
from fertool.errors import FertoolError
from fertool.graph.channels import trace_channels
from fertool.graph.groups import find_groups
from fertool.graph.surgery import find_positions, remove_channels, resize, surviving_rows
from fertool.pruning.criterion import Scores
from fertool.pruning.planning import choose_survivors
from fertool.spec import InputSpec

INPUT = InputSpec(channels=3, size=8, mean=(0.0,) * 3, std=(1.0,) * 3)


def cut(network, sizes, seed=0):
    """Return the network with groups of these sizes and what is kept of each layer,
    drawn at random.
    """
    graph = trace_channels(network)
    skeleton = resize(network, graph, find_groups(graph), sizes)
    pruned = trace_channels(skeleton)
    drawn = torch.rand(
        len(graph.fixed), dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    survivors = choose_survivors(graph, pruned, Scores(drawn, additive=False))
    kept = {
        old.name: tuple(
            find_positions(old.outputs, survivors[new.outputs], survivors, old.name).tolist()
        )
        for old, new in zip(graph.layers, pruned.layers, strict=True)
        if old.kind == "dense"
    }
    return remove_channels(network, graph, skeleton, pruned, kept), kept


def sizes_of(network):
    return find_groups(trace_channels(network)).as_map()


def images(n=3):
    return torch.rand(n, *IMAGE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def assert_equals_masking(network, sizes):
    smaller, kept = cut(network, sizes)
    assert sizes_of(smaller) == sizes
    torch.testing.assert_close(
        smaller(images()), masked(network, kept)(images()), atol=1e-9, rtol=1e-9
    )
    counted = cost.count(smaller, INPUT)
    graph = trace_channels(smaller)
    assert (graph.macs, graph.params) == (counted.macs, counted.params)
    assert counted.params == sum(parameter.numel() for parameter in smaller.parameters())
    assert graph.stored_values == sum(
        t.numel() for t in smaller.state_dict().values() if t.is_floating_point()
    )
    assert graph.macs < trace_channels(network).macs


@pytest.mark.parametrize("name", NETWORKS)
def test_removing_from_every_group_equals_masking(name):
    network = small_network(name)
    sizes = {group: size - size // 2 for group, size in sizes_of(network).items()}
    assert_equals_masking(network, sizes)
    with torch.no_grad():
        assert not torch.allclose(cut(network, sizes)[0](images()), network(images()), atol=1e-4)


@pytest.mark.parametrize("name", NETWORKS)
def test_each_group_can_go_down_alone(name):
    network = small_network(name)
    whole = sizes_of(network)
    for group, size in whole.items():
        assert_equals_masking(network, {**whole, group: max(2, size // 3)})
        assert_equals_masking(network, {**whole, group: size - 1})


def test_the_network_that_is_cut_is_not_changed_and_shares_no_memory():
    network = small_network("residual")
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    smaller, _ = cut(network, {name: size // 2 for name, size in sizes_of(network).items()})
    with torch.no_grad():
        for parameter in smaller.parameters():
            parameter.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_a_cut_network_learns_and_keeps_its_mode():
    network = small_network("grouped").train()
    smaller, _ = cut(network, {name: size // 2 for name, size in sizes_of(network).items()})
    assert smaller.training
    smaller(images(4)).square().sum().backward()
    assert all(parameter.grad is not None for parameter in smaller.parameters())


def test_surviving_rows_are_where_the_channels_stood():
    network = small_network("grouped")
    graph = trace_channels(network)
    smaller, kept = cut(network, {name: size // 2 for name, size in sizes_of(network).items()})
    rows = surviving_rows(graph, trace_channels(smaller), kept)
    for name in ("parts.0", "parts.1"):
        old, new = network.get_submodule(name).weight, smaller.get_submodule(name).weight
        assert torch.equal(new, old[rows[name]])
    # A group of six channels goes or stays as one, and the four channels that it reads with it.
    places = rows["parts.0"].reshape(-1, 6)
    assert torch.equal(places, 6 * (places[:, :1] // 6) + torch.arange(6))
    assert kept["open.0"] == tuple(
        4 * int(row[0]) // 6 + place for row in places for place in range(4)
    )


def test_rows_that_do_not_line_up_are_an_error_that_names_the_layer():
    network = small_network("residual")
    graph = trace_channels(network)
    skeleton = resize(network, graph, find_groups(graph), {**sizes_of(network), "stem.0": 4})
    pruned = trace_channels(skeleton)
    kept = {
        layer.name: tuple(range(len(layer.outputs)))
        for layer in pruned.layers
        if layer.kind == "dense"
    }
    with pytest.raises(FertoolError, match=r"do not line up at layer .(stem|one)"):
        remove_channels(network, graph, skeleton, pruned, {**kept, "one": (1, 2, 3, 4)})
