"""HAWQ-V2: the same bits for all channels of a layer."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from fertool.quant.allocation import Allocation, BitEvaluator
from fertool.quant.allocation_problem import AllocationProblem
from fertool.quant.knapsack import least_loss, spend_remaining_bits
from fertool.registry import ALLOCATIONS


@ALLOCATIONS.register("hawq")
class Hawq(Allocation):
    """Least sum of trace times rounding error, by whole layers (HAWQ-V2).

    Dong et al. 2020, arXiv 1911.03852, equation 5.
    """

    def allocate(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator | None
    ) -> Tensor:
        """Return the same bits for all channels of a layer, by the layer's mean trace.

        Only the few channels that the rest of the budget goes to have more.
        """
        budget = problem.items.budget(average_bits)
        weights = _sum_by_layer(problem, problem.weight_counts)
        mean = _sum_by_layer(problem, problem.traces * problem.weight_counts) / weights
        losses = _sum_by_layer(problem, replace(problem, traces=mean[problem.layers]).losses)
        items = replace(problem.items, losses=losses, sizes=weights)
        by_layer, missed = least_loss(items, budget)
        bits = by_layer[problem.layers]
        if missed:
            # The layer that was next in turn gets as many of its channels as still fit.
            layer, more = missed[0]
            for channel in (problem.layers == layer).nonzero().flatten().tolist():
                extra = int(problem.weight_counts[channel]) * (more - int(bits[channel]))
                if extra <= budget - problem.items.total_bits(bits):
                    bits[channel] = more
        return spend_remaining_bits(problem.items, bits, budget)


def _sum_by_layer(problem: AllocationProblem, values: Tensor) -> Tensor:
    sums = values.new_zeros((len(problem.names), *values.shape[1:]))
    return sums.index_add_(0, problem.layers, values)
