"""The L2 norm of filters."""

from __future__ import annotations

from torch import Tensor

from fertool.pruning.weight_criterion import WeightCriterion, filter_norms
from fertool.registry import CRITERIA


@CRITERIA.register("l2")
class L2Norm(WeightCriterion):
    """Root of the summed squares of the weights of a filter.

    He et al. 2018, arXiv 1808.06866, section 3.2.
    """

    def score_filters(self, weights: Tensor, scales: Tensor | None) -> Tensor:
        """Return the norms [out]."""
        return filter_norms(weights)
