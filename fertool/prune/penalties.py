"""What schedules add to a loss so that channels become small before they go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.network import Network
from fertool.header_json import canonical_json
from fertool.prune.criteria import gated_layers
from fertool.prune.planning import PrunePlan


class Loss(Protocol):
    """What is minimised: of a module, normalised inputs [N, C, S, S] and targets [N, K] a scalar; see the engine."""

    @property
    def fingerprint(self) -> str:
        """All that the loss depends on."""

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch."""


@dataclass(frozen=True)
class ScaleSparsity:
    """`λ Σ |γ|` over the BN scales of channels that can go (Network Slimming; PRJ thesis, equation 3-7)."""

    strength: float
    scales: tuple[str, ...]

    @classmethod
    def of(cls, graph: ChannelGraph, strength: float) -> ScaleSparsity:
        """Take the gates of a network."""
        gates = (
            layer for layer in gated_layers(graph) if layer.kind == "norm" and layer.per_output
        )
        return cls(strength, tuple(f"{layer.name}.weight" for layer in gates))

    def __call__(self, module: nn.Module, progress: float) -> Tensor:
        """Return the penalty, a scalar."""
        return (
            self.strength
            * torch.stack([module.get_parameter(name).abs().sum() for name in self.scales]).sum()
        )


@dataclass(frozen=True)
class GrowingPenalty:
    """`λ/2 Σ w²` over the filters and BN scales of channels that will go, λ growing by epochs up to `ceiling`.

    Growing regularisation (Wang et al. 2021, arXiv 2012.09243, section 3.2): channels chosen beforehand vanish slowly,
    and the others learn to do without. The scales are in it because BN undoes what shrinks a filter alone. `doomed`
    holds the rows that go, by parameter.
    """

    ceiling: float
    doomed: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(
        cls, module: Network, graph: ChannelGraph, plan: PrunePlan, ceiling: float
    ) -> GrowingPenalty:
        """Take the channels that a plan removes."""
        alive = set(graph.inputs.tolist())
        for layer in graph.layers:
            if layer.kind == "dense":
                alive.update(layer.outputs[list(plan.kept[layer.name])].tolist())
        doomed, parameters = {}, {name for name, _ in module.named_parameters()}
        # Of a transposed convolution the filters do not lie along the first axis; the BN behind it has to do.
        nodes = module.graph.by_name
        for layer in graph.layers:
            rows = tuple(
                row for row, index in enumerate(layer.outputs.tolist()) if index not in alive
            )
            name = f"{layer.name}.weight"
            if nodes[layer.name].op == "conv_transpose2d":
                continue
            if layer.kind in ("dense", "grouped", "norm") and rows and name in parameters:
                doomed[name] = rows
        return cls(ceiling, doomed)

    def __call__(self, module: nn.Module, progress: float) -> Tensor:
        """Return the penalty, a scalar, when `progress` of the run, from 0 to 1, is done."""
        rows = (module.get_parameter(name)[list(rows)] for name, rows in self.doomed.items())
        return (
            self.ceiling
            * progress
            / 2
            * torch.stack([weights.square().sum() for weights in rows]).sum()
        )


Penalty = ScaleSparsity | GrowingPenalty


class Penalised:
    """An objective and a penalty; it plans epochs as the objective does, which the training loop tells it of."""

    def __init__(self, objective: Loss, penalty: Penalty, epochs: int) -> None:
        self.objective, self.penalty, self.epochs = objective, penalty, epochs
        self._progress = 0.0

    @property
    def fingerprint(self) -> str:
        """That of the objective, the penalty and how long it grows."""
        return f"{self.objective.fingerprint} {canonical_json(asdict(self.penalty))} {self.epochs}"

    def plan_epoch(self, epoch: int, targets: Tensor) -> tuple[Tensor, Any]:
        """Start an epoch, counted from 1, with what the objective plans for it."""
        self._progress = epoch / self.epochs
        plan = getattr(self.objective, "plan_epoch", None)
        return plan(epoch, targets) if plan else (targets, None)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch with the penalty."""
        return self.objective(module, inputs, targets) + self.penalty(module, self._progress)
