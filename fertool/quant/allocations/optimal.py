"""The least loss, channel by channel."""

from __future__ import annotations

from torch import Tensor

from fertool.quant.allocation import Allocation, BitEvaluator
from fertool.quant.allocation_problem import AllocationProblem
from fertool.quant.knapsack import least_loss, spend_remaining_bits
from fertool.registry import ALLOCATIONS


@ALLOCATIONS.register("optimal")
class Optimal(Allocation):
    """Least sum of trace times rounding error, channel by channel."""

    def allocate(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator | None
    ) -> Tensor:
        """Return the bits of least loss, at most one channel's step away from the best possible.

        What is left of the budget is spent one bit at a time.
        """
        budget = problem.items.budget(average_bits)
        bits, _ = least_loss(problem.items, budget)
        return spend_remaining_bits(problem.items, bits, budget)
