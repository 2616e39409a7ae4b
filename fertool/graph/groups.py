"""Which numbers of channels can be chosen: groups of layers whose channels go together, with the size of each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fertool.graph.channels import ChannelGraph

_NOBODY = -1


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of a network in running order.

    A group is named by the first layer that makes its channels; `layers` has all that make them.
    `sizes` counts what can be removed one by one: channels, or of convolutions in groups the
    groups; `unit_channels` has the channels of each in the smallest of the layers. `group_of_id`
    [classes] is the index of the group of each, -1 for those that stay.
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

    Classes with the same uses are interchangeable and make a group. Where a node cuts channels into
    parts of equal size, all that enter it are one group: their numbers can only change together.
    Where a layer has unlike numbers of channels of the classes of one group, as behind convolutions
    in groups over joined maps, that group stays.
    """
    segments = list(graph.segments().values())
    owner = torch.full((len(graph.fixed),), _NOBODY)
    for number, members in enumerate(segments):
        owner[members] = number
    parents = list(range(len(segments)))

    def root(number: int) -> int:
        while parents[number] != number:
            number = parents[number]
        return number

    for parts in graph.equal_parts.values():
        tied = sorted({root(number) for number in owner[torch.cat(parts)].tolist()})
        for number in tied[1:]:
            parents[root(number)] = tied[0]
    roots = torch.tensor([root(number) for number in range(len(segments))])
    stay = {int(roots[number]) for number in owner[graph.fixed].tolist()}
    makers: dict[int, list[str]] = {}
    for layer in graph.layers:
        if layer.kind == "dense":
            # A layer whose channels fall into several groups makes channels of each.
            for number in dict.fromkeys(roots[owner[layer.outputs]].tolist()):
                makers.setdefault(number, []).append(layer.name)
    uneven = _uneven_groups(graph, roots[owner])
    open_roots = [number for number in makers if number not in stay | uneven]
    index = {number: place for place, number in enumerate(open_roots)}
    group_of_id = torch.tensor([index.get(number, _NOBODY) for number in roots[owner].tolist()])
    sizes, units = [], []
    for place, number in enumerate(open_roots):
        in_group = group_of_id == place
        counts = [int(in_group[graph.by_name[name].outputs].sum()) for name in makers[number]]
        equal = [
            int(in_group[part].sum()) for parts in graph.equal_parts.values() for part in parts
        ]
        # Each layer of equal parts has channels of its own; elsewhere a class is in every layer of
        # its group.
        size = int(in_group.sum())
        if any(equal):
            # Whatever cuts these channels at other places has to be able to follow.
            others = [int(in_group[part].sum()) for parts in graph.parts.values() for part in parts]
            size = math.gcd(size, *counts, *equal, *others)
        sizes.append(size)
        units.append(max(1, min(counts) // size))
    return Groups(
        tuple(_unique_names([makers[number][0] for number in open_roots])),
        tuple(tuple(makers[number]) for number in open_roots),
        tuple(sizes),
        tuple(units),
        group_of_id,
    )


def _uneven_groups(graph: ChannelGraph, group_of_class: Tensor) -> set[int]:
    """Return the groups of which some layer has more channels of one class than of another that it has too.

    Then no number of channels says which classes are left. `group_of_class` [classes] numbers the groups.
    """
    classes, groups = len(group_of_class), int(group_of_class.max()) + 1
    uneven = torch.zeros(groups, dtype=torch.bool)
    for layer in graph.layers:
        for side in (layer.inputs, layer.outputs):
            counts = torch.bincount(side, minlength=classes)
            present = counts > 0
            own = group_of_class[present]
            fewest = torch.full((groups,), len(side)).scatter_reduce(
                0, own, counts[present], "amin"
            )
            most = torch.zeros(groups, dtype=torch.long)
            most.scatter_reduce_(0, own, counts[present], "amax")
            uneven |= most > fewest
    return set(uneven.nonzero().flatten().tolist())


def _unique_names(names: list[str]) -> list[str]:
    """Return names of which each stands once: where a layer makes channels of several groups they are numbered."""
    seen: dict[str, int] = {}
    unique = []
    for name in names:
        seen[name] = seen.get(name, -1) + 1
        unique.append(f"{name}[{seen[name]}]" if seen[name] else name)
    return unique


def count_resized(counts: Tensor, groups: Groups, sizes: Mapping[str, int]) -> int:
    """Return how many of these classes [n] there are where the groups have other sizes; fixed ones stay."""
    total = int((groups.group_of_id[counts] == _NOBODY).sum())
    for place, (name, size) in enumerate(zip(groups.names, groups.sizes, strict=True)):
        present = int((groups.group_of_id[counts] == place).sum())
        total += present * sizes[name] // size
    return total
