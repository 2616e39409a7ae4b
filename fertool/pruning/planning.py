"""The plan of a pruning: how many channels each group keeps, and which survive."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.groups import Groups, find_groups
from fertool.graph.network import Network
from fertool.graph.surgery import find_positions, resize
from fertool.pruning.budget import Targets
from fertool.pruning.criterion import Scores
from fertool.pruning.latency_model import NO_LATENCY, LatencyModel
from fertool.pruning.scored_layers import dense_layers
from fertool.pruning.width_candidates import find_width_candidates
from fertool.pruning.width_search import choose_widths
from fertool.results import PlanSummary


@dataclass(frozen=True)
class PrunePlan:
    """How many channels each group keeps, by the group's first layer, and what the networks cost.

    `kept` names the surviving output channels of every convolution (not depthwise) and linear
    layer, as indices into the original's, ascending.
    """

    widths_before: Mapping[str, int]
    widths: Mapping[str, int]
    kept: Mapping[str, tuple[int, ...]]
    macs_before: int
    macs: int
    params_before: int
    params: int
    stored_before: int
    stored: int
    seconds_before: float
    seconds: float
    targets: Targets | None
    round_to: int

    @classmethod
    def between(
        cls,
        graph: ChannelGraph,
        pruned: ChannelGraph,
        latency: LatencyModel,
        *,
        kept: Mapping[str, tuple[int, ...]],
        targets: Targets | None = None,
        round_to: int = 1,
    ) -> PrunePlan:
        """Return the plan that leads from one network to another, with the costs of both."""
        return cls(
            widths_before=channel_counts(find_groups(graph)),
            widths=channel_counts(find_groups(pruned)),
            kept=kept,
            macs_before=graph.macs,
            macs=pruned.macs,
            params_before=graph.params,
            params=pruned.params,
            stored_before=graph.stored_values,
            stored=pruned.stored_values,
            seconds_before=latency.seconds(graph),
            seconds=latency.seconds(pruned),
            targets=targets,
            round_to=round_to,
        )

    @classmethod
    def unchanged(cls, graph: ChannelGraph, latency: LatencyModel) -> PrunePlan:
        """Return the plan that removes nothing."""
        return cls.between(graph, graph, latency, kept=all_outputs(graph))

    def then(self, following: PrunePlan) -> PrunePlan:
        """Return one plan for this one and a following one of the network that it makes."""
        kept = {}
        for name, rows in following.kept.items():
            kept[name] = tuple(self.kept[name][index] for index in rows)
        return replace(
            following,
            widths_before=self.widths_before,
            kept=kept,
            macs_before=self.macs_before,
            params_before=self.params_before,
            stored_before=self.stored_before,
            seconds_before=self.seconds_before,
            targets=self.targets,
        )

    @property
    def summary(self) -> PlanSummary:
        """What commands print, without the surviving channels."""
        return PlanSummary(
            widths_before=self.widths_before,
            widths=self.widths,
            macs_before=self.macs_before,
            macs=self.macs,
            macs_ratio=self.macs_ratio,
            params_before=self.params_before,
            params=self.params,
            params_ratio=self.params_ratio,
            latency_ratio=self.seconds_ratio if self.seconds_before else None,
            round_to=self.round_to,
        )

    @property
    def groups(self) -> list[tuple[str, int, int]]:
        """Each group with its channels before and after, 0 where its block was removed."""
        return [(name, old, self.widths.get(name, 0)) for name, old in self.widths_before.items()]

    @property
    def macs_ratio(self) -> float:
        """Fraction of the multiply-accumulates that remains."""
        return self.macs / self.macs_before

    @property
    def params_ratio(self) -> float:
        """Fraction of the parameters that remains."""
        return self.params / self.params_before

    @property
    def stored_ratio(self) -> float:
        """Fraction of the numbers stored in a file that remains."""
        return self.stored / self.stored_before

    @property
    def seconds_ratio(self) -> float:
        """Fraction of the latency that remains by the latency model; 1 without measurements."""
        return self.seconds / self.seconds_before if self.seconds_before else 1.0


def all_outputs(graph: ChannelGraph) -> dict[str, tuple[int, ...]]:
    """Return the indices of all output channels of each dense layer: `kept` where all stay."""
    return {layer.name: tuple(range(len(layer.outputs))) for layer in dense_layers(graph)}


def channel_counts(groups: Groups) -> dict[str, int]:
    """Return the channels of each group, by the name of its first layer."""
    counts = {}
    for name, size, unit in zip(groups.names, groups.sizes, groups.unit_channels, strict=True):
        counts[name] = size * unit
    return counts


def make_plan(
    network: Network,
    graph: ChannelGraph,
    scores: Scores,
    targets: Targets,
    round_to: int,
    latency: LatencyModel = NO_LATENCY,
    floors: Mapping[str, int] | None = None,
) -> tuple[PrunePlan, Network, ChannelGraph]:
    """Return the plan, the pruned network as a skeleton on the meta device, and its channel graph.

    `graph` is that of the network, `scores` the importance of its channel ids, `floors` the channel
    counts that some groups must keep. Raises FertoolError when the targets cannot be met.
    """
    groups = find_groups(graph)
    if not groups.names:
        raise FertoolError(
            "no layer of this network can be pruned: " + _reasons(graph),
            "fertool show with ``layers`` lists the reasons",
        )

    def retrace(sizes: Mapping[str, int]) -> ChannelGraph:
        return trace_channels(resize(network, graph, groups, sizes))

    candidates = find_width_candidates(graph, groups, scores, round_to, retrace, floors or {})
    widths = choose_widths(graph, groups, candidates, targets, round_to, latency)
    skeleton = resize(network, graph, groups, widths)
    pruned = trace_channels(skeleton)
    survivors = choose_survivors(graph, pruned, scores)
    plan = PrunePlan.between(
        graph,
        pruned,
        latency,
        kept=_kept_outputs(graph, pruned, survivors),
        targets=targets,
        round_to=round_to,
    )
    return plan, skeleton, pruned


def _reasons(graph: ChannelGraph) -> str:
    # More than three do not fit a line of an error.
    first = itertools.islice(graph.fixing_nodes.items(), 3)
    return "; ".join(f"{name}: {why}" for name, why in first) or "it has no hidden layers"


def _kept_outputs(
    graph: ChannelGraph, pruned: ChannelGraph, survivors: Tensor
) -> dict[str, tuple[int, ...]]:
    """Return which output channels of each dense layer survive."""
    kept = {}
    for old, new in zip(graph.layers, pruned.layers, strict=True):
        if old.kind == "dense":
            rows = find_positions(old.outputs, survivors[new.outputs], survivors, old.name)
            kept[old.name] = tuple(rows.tolist())
    return kept


def choose_survivors(graph: ChannelGraph, pruned: ChannelGraph, scores: Scores) -> Tensor:
    """Return for each channel id of the pruned graph the original id that it continues.

    Each segment keeps its most important channels, as many as the same segment has in the pruned
    network: with chunk and shuffle the position of a channel decides which layers read it, so the
    survivors of a layer must fall on the right side of each split. Of equal scores the first stays.
    """
    available = graph.segments()
    survivors = torch.empty(len(pruned.fixed), dtype=torch.int64)
    for uses, new_ids in pruned.segments().items():
        old_ids = torch.tensor(available.get(uses, []), dtype=torch.int64)
        if len(old_ids) < len(new_ids):
            source = uses[0][0] if uses else "the input"
            raise FertoolError(
                f"these widths need {len(new_ids)} channels from {source} for the same readers, "
                f"where the original has {len(old_ids)}",
                "try another ``round_to``",
            )
        order = scores.values[old_ids].argsort(descending=True, stable=True)
        # Survivors keep their order, which weights of the next layers depend on.
        best = order[: len(new_ids)].sort().values
        survivors[new_ids] = old_ids[best]
    return survivors
