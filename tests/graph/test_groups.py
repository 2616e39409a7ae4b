import pytest
import torch
import torch.nn.functional as F
from small_networks import Net, captured, conv, small_network
from torch import nn

from fertool.graph.channels import trace_channels
from fertool.graph.groups import count_resized, find_groups
from fertool.graph.surgery import resize
from fertool.pruning import channel_counts


def groups_of(network):
    return find_groups(trace_channels(network))


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("residual", [("stem.0", "one", "two"), ("inner.0",)]),
        ("squeeze_excitation", [("body.0", "up"), ("down",)]),
        ("depthwise", [("stem.0",), ("point.0",)]),
        ("decoder", [("high.0",), ("low.0",), ("merge.0", "side")]),
        ("layer_scale", [("stem.0", "two", "lower"), ("one",), ("upper",)]),
        ("beside_attention", [("free.0",), ("last.0",)]),
        ("places_of_both_axes", [("body.0", "rows", "columns"), ("small.0",)]),
        ("flattened", [("body.0",), ("hidden",)]),
        (
            "dense_concatenation",
            [("stem.0",), ("first.0",), ("second.0",), ("left.0", "right.0"), ("down.0",)],
        ),
    ],
)
def test_layers_that_make_the_same_channels_are_a_group_named_by_the_first(name, layers):
    groups = groups_of(small_network(name))
    assert list(groups.layers) == layers
    assert groups.names == tuple(first for first, *_ in layers)
    assert set(groups.unit_channels) == {1}


def test_a_layer_whose_channels_go_different_ways_makes_a_group_for_each():
    groups = groups_of(small_network("unequal_parts"))
    assert groups.as_map() == {
        "a.0": 5,
        "b.0": 7,
        "join.0": 4,
        "join.0[1]": 10,
        "few.0": 4,
        "many.0": 6,
    }
    groups = groups_of(small_network("slices"))
    # The first four of the large layer are added to; the other six are on their own.
    assert groups.as_map() == {"small.0": 4, "large.0": 6, "last.0": 6}
    assert groups.layers[0] == ("small.0", "large.0")


def test_equal_parts_are_tied():
    groups = groups_of(small_network("shuffle"))
    assert groups.as_map() == {"0.0": 8, "1.branch.0.0": 8, "2.branch.0.0": 8, "3.0": 8}
    assert groups.layers[0] == ("0.0", "1.branch.3.0", "2.branch.3.0")
    groups = groups_of(small_network("gated_products"))
    assert groups.as_map() == {"stem.0": 6, "both": 10, "next.0": 8, "one": 14}
    assert channel_counts(groups)["both"] == 20


def test_convolutions_in_groups_go_group_by_group():
    groups = groups_of(small_network("grouped"))
    assert groups.as_map() == {"stem.0": 8, "open.0": 4}
    assert groups.unit_channels == (1, 4)
    assert channel_counts(groups) == {"stem.0": 8, "open.0": 16}


def test_shuffled_groups_are_tied_to_one_that_can_not_be_divided():
    first, second = conv(12, 12, groups=3), conv(12, 12, groups=3)
    net = Net(
        lambda s, x: s.b(F.channel_shuffle(s.a(s.stem(x)), 3)).mean((2, 3)),
        stem=conv(1, 12),
        a=first,
        b=second,
    )
    net = nn.Sequential(net, nn.Linear(12, 2))
    assert groups_of(captured(net, (1, 4, 4))).as_map() == {"0.stem.0": 1}


def test_blocks_of_a_pixel_shuffle_go_together():
    groups = groups_of(small_network("pixel_shuffle"))
    assert groups.as_map() == {"wide.0": 6, "thin.0": 6, "last.0": 8}
    assert channel_counts(groups)["wide.0"] == 24


def test_what_must_stay_is_no_group_and_no_layer_of_one():
    net = Net(
        lambda s, x: s.d(s.c(s.b(s.a(x).softmax(1))).flatten(1)),
        a=nn.Conv2d(1, 4, 1), b=nn.Conv2d(4, 6, 1), c=nn.Conv2d(6, 5, 4), d=nn.Linear(5, 2),
    )  # fmt: skip
    groups = groups_of(captured(net, (1, 4, 4)))
    assert groups.as_map() == {"b": 6, "c": 5}


def test_resized_counts_what_stays_and_what_changes():
    network = small_network("dense_concatenation")
    graph = trace_channels(network)
    groups = find_groups(graph)
    sizes = {**groups.as_map(), "first.0": 1, "stem.0": 3}
    both = torch.cat((graph.inputs, graph.by_name["second.0"].inputs))
    assert count_resized(graph.by_name["second.0"].inputs, groups, sizes) == 3 + 1
    assert count_resized(both, groups, sizes) == 3 + 3 + 1


@pytest.mark.parametrize(
    "name", ["unequal_parts", "shuffle", "grouped", "pixel_shuffle", "gated_products"]
)
def test_a_resized_network_has_the_sizes_that_were_asked_and_no_values(name):
    network = small_network(name)
    graph = trace_channels(network)
    groups = find_groups(graph)
    sizes = {group: 2 + number % 2 for number, group in enumerate(groups.names)}
    smaller = resize(network, graph, groups, sizes)
    assert groups_of(smaller).as_map() == sizes
    assert all(parameter.is_meta for parameter in smaller.parameters())
    whole = resize(smaller, trace_channels(smaller), groups_of(smaller), groups.as_map())
    assert whole.graph == network.graph
