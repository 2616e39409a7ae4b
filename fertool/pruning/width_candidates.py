"""The channel counts that each group may have, and the loss of each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph, ChannelUses, Segments
from fertool.graph.groups import Groups
from fertool.pruning.criterion import Scores

# No group gets narrower than this fraction of its original width.
MIN_WIDTH_FRACTION = 0.1
# Keeps a division by the scores of a group finite whose channels all score 0.
_TINY = 1e-300
# Where each candidate width costs a trace of the whole network, at most so many.
MAX_TRACES = 24

Retrace = Callable[[Mapping[str, int]], ChannelGraph]
"""The channel graph of the same network with other sizes of its groups."""


@dataclass(frozen=True, eq=False)
class WidthCandidates:
    """Sizes of one group, descending from its present one, and their losses, float64 from 0."""

    widths: tuple[int, ...]
    losses: Tensor


def least_width(width: int) -> int:
    """Return the smallest width that a width may be pruned to."""
    # With a single channel a depthwise layer would look like a dense one.
    return max(2, math.ceil(MIN_WIDTH_FRACTION * width))


def find_width_candidates(
    graph: ChannelGraph,
    groups: Groups,
    scores: Scores,
    round_to: int,
    retrace: Retrace,
    floors: Mapping[str, int],
) -> list[WidthCandidates]:
    """Return the candidates of each group: multiples of `round_to` down to the floor.

    The least important channels of a group are the first to go.

    `floors` are channel counts that some groups must keep, beside the common floor.

    With a fraction q of the group's score removed the loss is `-log(1 - q)`, for additive scores
    times the group's total: the first channels cost their score, and a thinned layer costs ever
    more. First-order scores, each taken with all other channels in place, do not show that.

    Where the position of a channel decides which layers read it (several segments), a size may need
    more channels in some segment than there are; such sizes are no candidates.
    """
    present = _segments_by_group(graph, groups, graph)
    split = [k for k, segments in enumerate(present) if len(segments) > 1]

    sizes = []
    for k, name in enumerate(groups.names):
        unit = groups.unit_channels[k]
        step = max(1, round_to // unit)
        floor = math.ceil(floors.get(name, 0) / unit)
        most = MAX_TRACES if k in split else None
        sizes.append(_candidate_sizes(groups.sizes[k], step, floor, most))
    traced = _trace_split_groups(graph, groups, retrace, sizes, split)

    candidates = []
    for k, widths in enumerate(sizes):
        counts = []
        for number, width in enumerate(widths):
            if k in split:
                counts.append(_counts(traced[number][k]))
            else:
                counts.append(_scaled_counts(present[k], width, groups.sizes[k]))
        candidates.append(_with_losses(widths, counts, present[k], scores))
    return candidates


def _candidate_sizes(width: int, round_to: int, floor: int, most: int | None) -> list[int]:
    """Return the present width and multiples of `round_to` down to the floor, at most `most`."""
    floor = max(floor, round_to, least_width(width))
    lower = range((width - 1) // round_to * round_to, floor - 1, -round_to)
    if most and lower:
        lower = lower[:: math.ceil(len(lower) / most)]
    return [width, *lower]


def _trace_split_groups(
    graph: ChannelGraph,
    groups: Groups,
    retrace: Retrace,
    sizes: Sequence[Sequence[int]],
    split: Sequence[int],
) -> list[list[Segments]]:
    """Return the segments of each group with all `split` groups at the n-th candidate, by n."""
    longest = 0
    for k in split:
        longest = max(longest, len(sizes[k]))

    traced = []
    # All split groups shrink at once: one trace a step, not one a group and step.
    for step in range(longest):
        lower = {}
        for k in split:
            last = len(sizes[k]) - 1
            lower[groups.names[k]] = sizes[k][min(step, last)]
        other = retrace({**groups.as_map(), **lower})
        traced.append(_segments_by_group(graph, groups, other))
    return traced


def _segments_by_group(graph: ChannelGraph, groups: Groups, other: ChannelGraph) -> list[Segments]:
    """Sort the segments of `other` by the group that has them in `graph` or computes them."""
    group_of_segment = {}
    for uses, members in graph.segments().items():
        group_of_segment[uses] = int(groups.group_of_id[members[0]])
    group_of_layer = {}
    for k, names in enumerate(groups.layers):
        for name in names:
            group_of_layer[name] = k

    found: list[Segments] = [{} for _ in groups.names]
    for uses, members in other.segments().items():
        group = group_of_segment.get(uses)
        if group is None:
            # Narrower networks may split channels where the original does not.
            group = _computing_group(uses, group_of_layer)
        if group >= 0:
            found[group][uses] = members
    return found


def _computing_group(uses: ChannelUses, group_of_layer: Mapping[str, int]) -> int:
    """Return the group of the first layer that computes a segment, -1 if it has none."""
    for name, is_output in uses:
        if is_output and name in group_of_layer:
            return group_of_layer[name]
    return -1


def _counts(segments: Segments) -> dict[ChannelUses, int]:
    return {uses: len(members) for uses, members in segments.items()}


def _scaled_counts(segments: Segments, width: int, size: int) -> dict[ChannelUses, int]:
    """Return the channels of each segment when the group's `size` becomes `width`."""
    counts = {}
    for uses, members in segments.items():
        counts[uses] = len(members) * width // size
    return counts


def _with_losses(
    sizes: Sequence[int],
    counts: Sequence[Mapping[ChannelUses, int]],
    segments: Segments,
    scores: Scores,
) -> WidthCandidates:
    """Return the sizes whose `counts` the segments can fill, with their losses."""
    ascending = {}
    for uses, members in segments.items():
        ascending[uses] = scores.values[members].sort().values

    widths, removed = [], []
    for width, wanted in zip(sizes, counts, strict=True):
        if not _can_fill(segments, wanted):
            continue
        widths.append(width)
        lost = 0.0
        for uses, values in ascending.items():
            lost += float(values[: len(values) - wanted.get(uses, 0)].sum())
        removed.append(lost)

    total = max(sum(float(values.sum()) for values in ascending.values()), _TINY)
    # Below 1, so that removing nearly everything has a finite loss.
    fraction = (torch.tensor(removed, dtype=torch.float64) / total).clamp(max=1 - 1e-12)
    losses = -torch.log1p(-fraction)
    if scores.additive:
        losses = losses * total
    return WidthCandidates(tuple(widths), losses)


def _can_fill(segments: Segments, wanted: Mapping[ChannelUses, int]) -> bool:
    return all(count <= len(segments.get(uses, ())) for uses, count in wanted.items())
