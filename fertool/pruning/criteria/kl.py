"""The change of the output to second order."""

from __future__ import annotations

import torch
from torch import Tensor

from fertool.losses import divergence_probe
from fertool.pruning.gate_criterion import GateChanges, GateCriterion
from fertool.registry import CRITERIA


@CRITERIA.register("kl")
class OutputDivergence(GateCriterion):
    """Change of the output to second order where the channel is closed; needs images, no labels.

    Half the squared change of `u . z`, summed over images, which is KL(network || network without
    the channels) to second order. The first order of KL is zero at the network's own weights. All
    gates of an id close at once, so that their changes are added before they are squared. This is
    Fisher pruning (Theis et al. 2018, arXiv 1801.05787; of coupled channels Liu et al. 2021, arXiv
    2108.00708) by the network's own predictions in place of labels.
    """

    def loss(self, logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Return `u . z` in random directions u."""
        return divergence_probe(logits, generator)

    def aggregate(self, changes: GateChanges, ids: int) -> Tensor:
        """Return half the summed squares of the changes [ids]."""
        joint = torch.zeros(len(changes[0][1]), ids, dtype=torch.float64)
        for closed, change in changes:
            joint.index_add_(1, closed, change.to("cpu", torch.float64))
        return joint.square().sum(0) / 2
