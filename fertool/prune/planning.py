"""What pruning is going to do: new widths, and the channels that survive."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError
from fertool.prune.budget import Targets, choose_widths
from fertool.prune.criteria import Scores
from fertool.prune.graph import ChannelGraph, trace_channels
from fertool.prune.keys import Builder, find_width_keys
from fertool.prune.ladders import make_ladders
from fertool.prune.latency import NO_TIME, LatencyModel
from fertool.prune.surgery import positions
from fertool.spec import InputSpec


@dataclass(frozen=True)
class PrunePlan:
    """New widths with what they cost.

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
    def between(cls, graph: ChannelGraph, pruned: ChannelGraph, latency: LatencyModel, **chosen: Any) -> PrunePlan:
        """Return the plan that leads from one network to another, with the costs of both; `chosen` are the others."""
        return cls(
            macs_before=graph.macs,
            macs=pruned.macs,
            params_before=graph.params,
            params=pruned.params,
            stored_before=graph.stored,
            stored=pruned.stored,
            seconds_before=latency.seconds(graph),
            seconds=latency.seconds(pruned),
            **chosen,
        )

    @classmethod
    def to_stay(cls, graph: ChannelGraph, widths: Mapping[str, int], latency: LatencyModel) -> PrunePlan:
        """Return the plan that removes nothing."""
        return cls.between(
            *(graph, graph, latency),
            widths_before=dict(widths),
            widths=dict(widths),
            kept={layer.name: tuple(range(len(layer.outputs))) for layer in graph.layers if layer.kind == "dense"},
            targets=None,
            round_to=1,
        )

    def then(self, next: PrunePlan) -> PrunePlan:
        """Return one plan for this one and another of the network that it makes."""
        return replace(
            next,
            widths_before=self.widths_before,
            kept={name: tuple(self.kept[name][index] for index in rows) for name, rows in next.kept.items()},
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


def make_plan(
    build: Builder,
    widths: Mapping[str, int],
    input: InputSpec,
    graph: ChannelGraph,
    scores: Scores,
    targets: Targets,
    round_to: int,
    latency: LatencyModel = NO_TIME,
    floors: Mapping[str, int] | None = None,
) -> tuple[PrunePlan, nn.Module, ChannelGraph]:
    """Return the plan, the pruned network as a skeleton on the meta device, and its channel graph.

    `graph` is that of the network at `widths`, `scores` the importance of its classes, `floors` the widths that some
    keys do not go below. Raises FertoolError when the targets cannot be met.
    """

    def skeleton_at(widths: Mapping[str, int]) -> nn.Module:
        with torch.device("meta"):
            return build(widths)

    keys = find_width_keys(skeleton_at, widths, graph)
    ladders = make_ladders(
        graph, keys, scores, widths, round_to, lambda lower: trace_channels(skeleton_at(lower), input), floors or {}
    )
    chosen = choose_widths(graph, keys, ladders, widths, targets, round_to, latency)
    skeleton = skeleton_at(chosen)
    pruned = trace_channels(skeleton, input)
    survivors = choose_survivors(graph, pruned, scores)
    plan = PrunePlan.between(
        *(graph, pruned, latency),
        widths_before=dict(widths),
        widths=chosen,
        kept={
            old.name: tuple(positions(old.outputs, survivors[new.outputs], survivors, old.name).tolist())
            for old, new in zip(graph.layers, pruned.layers, strict=True)
            if old.kind == "dense"
        },
        targets=targets,
        round_to=round_to,
    )
    return plan, skeleton, pruned


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
