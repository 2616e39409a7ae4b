"""The L2 norm of filters times the scale of batch norm."""

from __future__ import annotations

from torch import Tensor

from fertool.pruning.weight_criterion import WeightCriterion, filter_norms
from fertool.registry import CRITERIA


@CRITERIA.register("l2-gamma")
class ScaledL2Norm(WeightCriterion):
    """L2 norm of a filter times the scale of the batch norm behind it.

    Recipe 3: `||W_i|| |γ_i|`.
    """

    def score_filters(self, weights: Tensor, scales: Tensor | None) -> Tensor:
        """Return the norms [out], of a layer without BN as they are."""
        norms = filter_norms(weights)
        return norms if scales is None else norms * scales.abs()
