"""The least divergence of the outputs, channel by channel."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from fertool.quant.allocation import Allocation, BitEvaluator
from fertool.quant.allocation_problem import AllocationProblem
from fertool.quant.knapsack import least_loss, spend_remaining_bits
from fertool.registry import ALLOCATIONS


@ALLOCATIONS.register("fisher")
class Fisher(Allocation):
    """Least sum of what the errors of rounding each channel do to the outputs, without traces.

    The errors are those of the rounding itself; they count by the Fisher information, in which the
    Hessian of the KL divergence is J^T S S^T J (Martens 2020, arXiv 1412.1193, section 9).
    """

    needs_traces: ClassVar[bool] = False
    needs_divergences: ClassVar[bool] = True

    def allocate(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator | None
    ) -> Tensor:
        """Return the bits of least divergence, at most one channel's step from the best possible.

        What is left of the budget is spent one bit at a time.
        """
        if problem.divergences is None:
            raise AssertionError("the divergences have to be measured")
        needed = problem.divergences[:, problem.needed_columns]
        items = replace(problem.items, losses=needed)
        budget = items.budget(average_bits)
        bits, _ = least_loss(items, budget)
        return spend_remaining_bits(items, bits, budget)
