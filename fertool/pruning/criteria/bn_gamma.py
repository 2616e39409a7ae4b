"""The scales of batch norm."""

from __future__ import annotations

from torch import Tensor

from fertool.pruning.weight_criterion import WeightCriterion
from fertool.registry import CRITERIA


@CRITERIA.register("bn-gamma")
class BatchNormScale(WeightCriterion):
    """Scale of the batch norm behind a filter.

    Liu et al. 2017 (Network Slimming), arXiv 1708.06519, section 3.
    """

    # The BN behind a depthwise convolution closes the same path as the one before it.
    scores_depthwise = False

    def score_filters(self, weights: Tensor, scales: Tensor | None) -> Tensor | None:
        """Return the absolute scales [out], None for a layer without BN."""
        return None if scales is None else scales.abs()
