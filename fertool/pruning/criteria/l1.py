"""The L1 norm of filters."""

from __future__ import annotations

from torch import Tensor

from fertool.pruning.weight_criterion import WeightCriterion
from fertool.registry import CRITERIA


@CRITERIA.register("l1")
class L1Norm(WeightCriterion):
    """Sum of the absolute weights of a filter.

    Li et al. 2017, arXiv 1608.08710, section 3.1.
    """

    def score_filters(self, weights: Tensor, scales: Tensor | None) -> Tensor:
        """Return the norms [out]."""
        return weights.abs().sum(1)
