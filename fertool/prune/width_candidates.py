"""The numbers of channels that each group may take, and what going down to them loses."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph, ChannelUses, Segments
from fertool.graph.groups import Groups
from fertool.prune.criteria import Scores

FLOOR = 0.1
"""No width goes below this part of what it was."""
MAX_TRACES = 24
"""Where every rung costs a trace, this many at most."""

Retrace = Callable[[Mapping[str, int]], ChannelGraph]
"""The channel graph of the same network with other sizes of its groups."""


@dataclass(frozen=True, eq=False)
class Ladder:
    """Sizes of one group downwards from its present one, and what each of them loses, float64 from 0 upwards."""

    widths: tuple[int, ...]
    losses: Tensor


def least_width(width: int) -> int:
    """Return the smallest width that a width may fall to; with one channel depthwise layers would look dense."""
    return max(2, math.ceil(FLOOR * width))


def make_ladders(
    graph: ChannelGraph,
    groups: Groups,
    scores: Scores,
    round_to: int,
    retrace: Retrace,
    floors: Mapping[str, int],
) -> list[Ladder]:
    """Return one ladder per group: multiples of `round_to` down to the floor, each losing its least important channels.

    `floors` are numbers of channels that some groups do not go below, beside the common floor.

    With a share q of the group's score gone the loss is `-log(1 - q)`, for additive scores times the group's total: the
    first channels cost what they score, and a thinned layer gets ever dearer, as first-order scores, each taken with
    all other channels in place, do not know.

    Where positions decide who reads a channel (several segments), a size may need more channels in some segment than
    there are; such sizes are left out.
    """
    present = _segments(graph, groups, graph)
    split = [k for k, segments in enumerate(present) if len(segments) > 1]
    levels = []
    for k, (name, size, unit) in enumerate(
        zip(groups.names, groups.sizes, groups.unit_channels, strict=True)
    ):
        step, floor = max(1, round_to // unit), math.ceil(floors.get(name, 0) / unit)
        levels.append(_levels(size, step, floor, MAX_TRACES if k in split else None))
    traced = []
    for step in range(max((len(levels[k]) for k in split), default=0)):
        lower = {groups.names[k]: levels[k][min(step, len(levels[k]) - 1)] for k in split}
        traced.append(_segments(graph, groups, retrace({**groups.as_map(), **lower})))
    ladders = []
    for k, (size, segments) in enumerate(zip(groups.sizes, present, strict=True)):
        if k in split:
            counts = [_counts(found[k]) for found in traced[: len(levels[k])]]
        else:
            counts = [
                {part: n * width // size for part, n in _counts(segments).items()}
                for width in levels[k]
            ]
        ladders.append(_ladder(levels[k], counts, segments, scores))
    return ladders


def _levels(width: int, round_to: int, floor: int, most: int | None) -> list[int]:
    floor = max(floor, round_to, least_width(width))
    lower = range((width - 1) // round_to * round_to, floor - 1, -round_to)
    return [width, *(lower[:: math.ceil(len(lower) / most)] if most and lower else lower)]


def _segments(graph: ChannelGraph, groups: Groups, other: ChannelGraph) -> list[Segments]:
    """Sort the segments of `other` by the group that they have in `graph`, or whose layers make them."""
    own = {part: int(groups.group_of_id[members[0]]) for part, members in graph.segments().items()}
    of_layer = {name: place for place, names in enumerate(groups.layers) for name in names}
    found: list[Segments] = [{} for _ in groups.names]
    for part, members in other.segments().items():
        place = own.get(
            part, next((of_layer[name] for name, makes in part if makes and name in of_layer), -1)
        )
        if place >= 0:
            found[place][part] = members
    return found


def _counts(segments: Segments) -> dict[ChannelUses, int]:
    return {touching: len(members) for touching, members in segments.items()}


def _ladder(
    levels: list[int], counts: list[dict[ChannelUses, int]], segments: Segments, scores: Scores
) -> Ladder:
    """Return the levels whose `counts` the segments can fill."""
    ascending = {part: scores.values[members].sort().values for part, members in segments.items()}
    widths, lost = [], []
    for width, wanted in zip(levels, counts, strict=True):
        if all(count <= len(segments.get(part, ())) for part, count in wanted.items()):
            gone = (
                values[: len(values) - wanted.get(part, 0)] for part, values in ascending.items()
            )
            widths.append(width)
            lost.append(sum(float(values.sum()) for values in gone))
    total = max(sum(float(values.sum()) for values in ascending.values()), 1e-300)
    share = (torch.tensor(lost, dtype=torch.float64) / total).clamp(max=1 - 1e-12)
    losses = -torch.log1p(-share)
    return Ladder(tuple(widths), losses * total if scores.additive else losses)
