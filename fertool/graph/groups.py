"""Groups of channels that are pruned together: their layers and their sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.disjoint_sets import DisjointSets

_NO_GROUP = -1


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a network in running order.

    A group is named by the first layer that outputs its channels; `layers` has all layers that do.
    `sizes` counts what can be removed one by one: channels, or groups of grouped convolutions.
    `unit_channels` has the channels of one such unit in the layer with the fewest. `group_of_id`
    [ids] has the index of the group of each channel id, -1 for channels that cannot be removed.
    """

    names: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    sizes: tuple[int, ...]
    unit_channels: tuple[int, ...]
    group_of_id: Tensor

    def as_map(self) -> dict[str, int]:
        """Return the sizes by the names of the groups."""
        return dict(zip(self.names, self.sizes, strict=True))


def find_groups(graph: ChannelGraph) -> Groups:
    """Return the groups of a channel graph.

    Channels with the same uses are interchangeable and form a group. Where a node cuts channels
    into parts of equal size, all its input channels form one group: their numbers can only change
    together. Where a layer has different numbers of channels for the ids of one group, as behind
    grouped convolutions over concatenated maps, the channels of that group are not removed.
    """
    root_of_id = _root_of_each_id(graph)
    producers = _producers(graph, root_of_id)
    excluded = set(root_of_id[graph.fixed].tolist()) | _uneven_roots(graph, root_of_id)
    roots = [root for root in producers if root not in excluded]

    group_of_root = torch.full((int(root_of_id.max()) + 1,), _NO_GROUP)
    group_of_root[torch.tensor(roots, dtype=torch.long)] = torch.arange(len(roots))
    group_of_id = group_of_root[root_of_id]

    first_layers, layers, sizes, unit_channels = [], [], [], []
    for index, root in enumerate(roots):
        names = producers[root]
        in_group = group_of_id == index
        counts = [_count(in_group, graph.by_name[name].outputs) for name in names]
        size = _group_size(graph, in_group, counts)
        first_layers.append(names[0])
        layers.append(tuple(names))
        sizes.append(size)
        unit_channels.append(max(1, min(counts) // size))

    return Groups(
        names=tuple(_unique_names(first_layers)),
        layers=tuple(layers),
        sizes=tuple(sizes),
        unit_channels=tuple(unit_channels),
        group_of_id=group_of_id,
    )


def _root_of_each_id(graph: ChannelGraph) -> Tensor:
    """Return the root of each id, [ids]; the segments of one root are pruned together."""
    segments = list(graph.segments().values())
    segment_of_id = torch.full((len(graph.fixed),), _NO_GROUP)
    for number, ids in enumerate(segments):
        segment_of_id[ids] = number

    together = DisjointSets(len(segments))
    for parts in graph.equal_parts.values():
        numbers = segment_of_id[torch.cat(parts)].tolist()
        together.unite_all(numbers)
    return torch.tensor(together.roots())[segment_of_id]


def _producers(graph: ChannelGraph, root_of_id: Tensor) -> dict[int, list[str]]:
    """Return the names of the dense layers that output channels of each root, in running order."""
    found: dict[int, list[str]] = {}
    for layer in graph.layers:
        if layer.kind != "dense":
            continue
        # A layer whose output channels fall into several groups is in each of them.
        for root in dict.fromkeys(root_of_id[layer.outputs].tolist()):
            found.setdefault(root, []).append(layer.name)
    return found


def _group_size(graph: ChannelGraph, in_group: Tensor, counts: list[int]) -> int:
    """Return how many units a group, bool [ids], has; `counts` are the channels of its layers."""
    size = int(in_group.sum())
    equal_parts = _part_counts(graph.equal_parts, in_group)
    if not any(equal_parts):
        return size
    # Each of the equal parts has channels of its own, so that a unit is one channel of each part;
    # nodes that cut these channels at other indices have to be able to follow.
    return math.gcd(size, *counts, *equal_parts, *_part_counts(graph.parts, in_group))


def _part_counts(parts: Mapping[str, tuple[Tensor, ...]], in_group: Tensor) -> list[int]:
    """Return how many channels of a group each part has."""
    counts = []
    for parts_of_node in parts.values():
        counts += [_count(in_group, ids) for ids in parts_of_node]
    return counts


def _count(in_group: Tensor, ids: Tensor) -> int:
    return int(in_group[ids].sum())


def _uneven_roots(graph: ChannelGraph, root_of_id: Tensor) -> set[int]:
    """Return the roots of which a layer has more channels of one id than of another.

    Then the number of channels that are left does not tell which ids they have.
    """
    uneven = torch.zeros(int(root_of_id.max()) + 1, dtype=torch.bool)
    for layer in graph.layers:
        uneven |= _is_uneven(layer.inputs, root_of_id, len(uneven))
        uneven |= _is_uneven(layer.outputs, root_of_id, len(uneven))
    return set(uneven.nonzero().flatten().tolist())


def _is_uneven(ids: Tensor, root_of_id: Tensor, roots: int) -> Tensor:
    """Return for each root, bool [roots], whether its ids occur unequally often among `ids`."""
    # One pass for all roots: pruning in steps looks for groups in every step.
    counts = torch.bincount(ids, minlength=len(root_of_id))
    present = counts > 0
    own_roots = root_of_id[present]
    fewest = torch.full((roots,), len(ids))
    fewest = fewest.scatter_reduce(0, own_roots, counts[present], "amin")
    most = torch.zeros(roots, dtype=torch.long)
    most = most.scatter_reduce(0, own_roots, counts[present], "amax")
    return most > fewest


def _unique_names(names: list[str]) -> list[str]:
    """Number the names of layers that have channels in several groups."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        count = seen.get(name, 0)
        seen[name] = count + 1
        # The first keeps the plain name, which plans of networks without parts have.
        unique.append(f"{name}[{count}]" if count else name)
    return unique


def count_resized(ids: Tensor, groups: Groups, sizes: Mapping[str, int]) -> int:
    """Return how many channels with these ids [n] are left where the groups have other sizes."""
    group_of_channel = groups.group_of_id[ids]
    total = int((group_of_channel == _NO_GROUP).sum())
    for index, (name, size) in enumerate(zip(groups.names, groups.sizes, strict=True)):
        present = int((group_of_channel == index).sum())
        total += present * sizes[name] // size
    return total
