"""What pruning is going to do: how many channels each group keeps, and which survive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fertool.errors import FertoolError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.channels import trace_channels
from fertool.graph.groups import Groups, find_groups
from fertool.graph.network import Network
from fertool.graph.surgery import find_positions, resize
from fertool.prune.budget import Targets, choose_widths
from fertool.prune.criteria import Scores
from fertool.prune.latency_model import NO_TIME, LatencyModel
from fertool.prune.width_candidates import make_ladders


@dataclass(frozen=True)
class PrunePlan:
    """How many channels each group keeps, by the group's first layer, with what the networks cost.

    `kept` names the surviving output channels of every convolution (not depthwise) and linear layer, as indices into
    the original's, ascending.
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
        cls, graph: ChannelGraph, pruned: ChannelGraph, latency: LatencyModel, **chosen: Any
    ) -> PrunePlan:
        """Return the plan that leads from one network to another, with the costs of both; `chosen` are the others."""
        return cls(
            widths_before=channel_counts(find_groups(graph)),
            widths=channel_counts(find_groups(pruned)),
            macs_before=graph.macs,
            macs=pruned.macs,
            params_before=graph.params,
            params=pruned.params,
            stored_before=graph.stored_values,
            stored=pruned.stored_values,
            seconds_before=latency.seconds(graph),
            seconds=latency.seconds(pruned),
            **chosen,
        )

    @classmethod
    def to_stay(cls, graph: ChannelGraph, latency: LatencyModel) -> PrunePlan:
        """Return the plan that removes nothing."""
        return cls.between(
            *(graph, graph, latency),
            kept={
                layer.name: tuple(range(len(layer.outputs)))
                for layer in graph.layers
                if layer.kind == "dense"
            },
            targets=None,
            round_to=1,
        )

    def then(self, next: PrunePlan) -> PrunePlan:
        """Return one plan for this one and another of the network that it makes."""
        return replace(
            next,
            widths_before=self.widths_before,
            kept={
                name: tuple(self.kept[name][index] for index in rows)
                for name, rows in next.kept.items()
            },
            macs_before=self.macs_before,
            params_before=self.params_before,
            stored_before=self.stored_before,
            seconds_before=self.seconds_before,
            targets=self.targets,
        )

    @property
    def macs_ratio(self) -> float:
        """Part of the multiply-accumulates that remains."""
        return self.macs / self.macs_before

    @property
    def params_ratio(self) -> float:
        """Part of the parameters that remains."""
        return self.params / self.params_before

    @property
    def stored_ratio(self) -> float:
        """Part of the numbers that a file stores that remains."""
        return self.stored / self.stored_before

    @property
    def seconds_ratio(self) -> float:
        """Part of the latency that remains, by the model of the machine; 1 where nothing was measured."""
        return self.seconds / self.seconds_before if self.seconds_before else 1.0


def channel_counts(groups: Groups) -> dict[str, int]:
    """Return the channels of each group, by the name of its first layer."""
    return {
        name: size * unit
        for name, size, unit in zip(groups.names, groups.sizes, groups.unit_channels, strict=True)
    }


def make_plan(
    network: Network,
    graph: ChannelGraph,
    scores: Scores,
    targets: Targets,
    round_to: int,
    latency: LatencyModel = NO_TIME,
    floors: Mapping[str, int] | None = None,
) -> tuple[PrunePlan, Network, ChannelGraph]:
    """Return the plan, the pruned network as a skeleton on the meta device, and its channel graph.

    `graph` is that of the network, `scores` the importance of its classes, `floors` the numbers of channels that some
    groups do not go below. Raises FertoolError when the targets cannot be met.
    """
    groups = find_groups(graph)
    if not groups.names:
        raise FertoolError(
            "no layer of this network can be pruned: " + _reasons(graph),
            "fertool show --layers names what stands in the way",
        )

    def retrace(sizes: Mapping[str, int]) -> ChannelGraph:
        return trace_channels(resize(network, graph, groups, sizes))

    ladders = make_ladders(graph, groups, scores, round_to, retrace, floors or {})
    chosen = choose_widths(graph, groups, ladders, targets, round_to, latency)
    skeleton = resize(network, graph, groups, chosen)
    pruned = trace_channels(skeleton)
    survivors = choose_survivors(graph, pruned, scores)
    plan = PrunePlan.between(
        *(graph, pruned, latency),
        kept={
            old.name: tuple(
                find_positions(old.outputs, survivors[new.outputs], survivors, old.name).tolist()
            )
            for old, new in zip(graph.layers, pruned.layers, strict=True)
            if old.kind == "dense"
        },
        targets=targets,
        round_to=round_to,
    )
    return plan, skeleton, pruned


def _reasons(graph: ChannelGraph) -> str:
    reasons = [f"{name}: {why}" for name, why in graph.fixing_nodes.items()]
    return "; ".join(reasons[:3]) or "it has no hidden layers"


def choose_survivors(graph: ChannelGraph, pruned: ChannelGraph, scores: Scores) -> Tensor:
    """Return for each class of the pruned graph the original class that it carries on.

    Of each segment as many of the best classes stay as the same segment has in the pruned network: with chunk and
    shuffle a channel's position decides who reads it, so the survivors of a layer must fall on the right side of
    each split. Equal scores: the first stays.
    """
    available = graph.segments()
    survivors = torch.empty(len(pruned.fixed), dtype=torch.int64)
    for layers, places in pruned.segments().items():
        members = torch.tensor(available.get(layers, []), dtype=torch.int64)
        if len(members) < len(places):
            raise FertoolError(
                f"these widths need {len(places)} channels from {layers[0][0] if layers else 'the input'} for the same "
                f"readers, where the original has {len(members)}",
                "try another --round-to",
            )
        best = scores.values[members].argsort(descending=True, stable=True)[: len(places)]
        survivors[places] = members[best.sort().values]
    return survivors
