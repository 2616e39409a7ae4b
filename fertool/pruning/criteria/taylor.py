"""The change of the loss to first order."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fertool.pruning.gate_criterion import GateChanges, GateCriterion
from fertool.registry import CRITERIA


@CRITERIA.register("taylor")
class Taylor(GateCriterion):
    """Change of the loss to first order where the channel is closed; needs images.

    |φ ∂L/∂φ| summed over images, L being the cross-entropy of one image (Sun, thesis, equation
    3-6). The equation is read as the sum of absolute values, not the absolute value of the sum:
    changes of opposite sign do not make a channel unimportant. Parallel gates of a residual stream
    add up.
    """

    def loss(self, logits: Tensor, targets: Tensor, generator: torch.Generator) -> Tensor:
        """Return the cross-entropy, summed over images."""
        return F.cross_entropy(logits, targets, reduction="sum")

    def aggregate(self, changes: GateChanges, ids: int) -> Tensor:
        """Return the sums of the absolute changes [ids]."""
        scores = torch.zeros(ids, dtype=torch.float64)
        for closed, change in changes:
            scores.index_add_(0, closed, change.abs().sum(0).to("cpu", torch.float64))
        return scores
