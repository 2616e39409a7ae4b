"""Penalties that schedules add to a loss, so that channels become small before they are removed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from fertool.errors import UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.network import Network
from fertool.header_json import canonical_json
from fertool.objective import EpochPlan, Objective, plan_epoch
from fertool.pruning.planning import PrunePlan
from fertool.pruning.scored_layers import dense_layers, gated_layers


@dataclass(frozen=True)
class ScaleSparsity:
    """`λ Σ |γ|` over the BN scales of removable channels.

    Network Slimming (Liu et al. 2017, arXiv 1708.06519, equation 1); Sun, thesis, equation 3-7.
    """

    strength: float
    scales: tuple[str, ...]

    @classmethod
    def from_graph(cls, graph: ChannelGraph, strength: float) -> ScaleSparsity:
        """Return the penalty on the gates of a network; raises UsageError where it has none."""
        scales = []
        for layer in gated_layers(graph):
            if layer.kind == "norm" and layer.per_output:
                scales.append(f"{layer.name}.weight")
        if not scales:
            raise UsageError(
                "this network has no batch norm, whose scales the schedule trains towards zero",
                "use ``schedule=one-shot`` or ``schedule=iterative``",
            )
        return cls(strength, tuple(scales))

    def __call__(self, module: nn.Module, progress: float) -> Tensor:
        """Return the penalty, a scalar."""
        norms = torch.stack([module.get_parameter(name).abs().sum() for name in self.scales])
        return self.strength * norms.sum()


@dataclass(frozen=True)
class GrowingPenalty:
    """`λ/2 Σ w²` over filters and BN scales of channels to prune, λ growing by epochs to `ceiling`.

    Growing regularization (Wang et al. 2021, arXiv 2012.09243, section 3.2): channels chosen
    beforehand vanish slowly, and the others learn to do without. The scales are included because
    BN undoes what shrinks a filter alone. `pruned_channels` holds their rows, by parameter.
    """

    ceiling: float
    pruned_channels: Mapping[str, tuple[int, ...]]

    @classmethod
    def from_plan(
        cls, module: Network, graph: ChannelGraph, plan: PrunePlan, ceiling: float
    ) -> GrowingPenalty:
        """Return the penalty on the channels that a plan removes."""
        surviving = _surviving_ids(graph, plan)
        parameters = dict(module.named_parameters())
        pruned_channels = {}
        for layer in graph.layers:
            # A transposed convolution has its filters along the second axis: the BN behind it
            # has to do.
            if module.graph.by_name[layer.name].op == "conv_transpose2d":
                continue
            name = f"{layer.name}.weight"
            if layer.kind not in ("dense", "grouped", "norm") or name not in parameters:
                continue
            ids = enumerate(layer.outputs.tolist())
            rows = tuple(row for row, id in ids if id not in surviving)
            if rows:
                pruned_channels[name] = rows
        return cls(ceiling, pruned_channels)

    def __call__(self, module: nn.Module, progress: float) -> Tensor:
        """Return the penalty, a scalar, when `progress` of the run, from 0 to 1, is done."""
        sums = []
        for name, rows in self.pruned_channels.items():
            weights = module.get_parameter(name)[list(rows)]
            sums.append(weights.square().sum())
        return self.ceiling * progress / 2 * torch.stack(sums).sum()


def _surviving_ids(graph: ChannelGraph, plan: PrunePlan) -> set[int]:
    """Return the ids of the channels that a plan keeps, those of the image included."""
    surviving = set(graph.inputs.tolist())
    for layer in dense_layers(graph):
        kept = list(plan.kept[layer.name])
        surviving.update(layer.outputs[kept].tolist())
    return surviving


Penalty = ScaleSparsity | GrowingPenalty


class PenalizedObjective:
    """An objective and a penalty.

    It plans epochs as the objective does; the training loop calls `plan_epoch`.
    """

    def __init__(self, objective: Objective, penalty: Penalty, epochs: int) -> None:
        self.objective = objective
        self.penalty = penalty
        self.epochs = epochs
        # From 0 to 1 in the course of the epochs.
        self._progress = 0.0

    @property
    def fingerprint(self) -> str:
        """That of the objective, the penalty and the epochs over which it grows."""
        return f"{self.objective.fingerprint} {canonical_json(asdict(self.penalty))} {self.epochs}"

    def plan_epoch(self, epoch: int, targets: Tensor) -> EpochPlan:
        """Start an epoch, counted from 1, with what the objective plans for it."""
        self._progress = epoch / self.epochs
        return plan_epoch(self.objective, epoch, targets)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch with the penalty."""
        return self.objective(module, inputs, targets) + self.penalty(module, self._progress)
