"""The same bits for all."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from fertool.quant.allocation import Allocation, BitEvaluator
from fertool.quant.allocation_problem import AllocationProblem
from fertool.registry import ALLOCATIONS


@ALLOCATIONS.register("uniform")
class Uniform(Allocation):
    """The same bits for all channels; needs no Hessian traces."""

    needs_traces: ClassVar[bool] = False

    def allocate(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator | None
    ) -> Tensor:
        """Return the same bits for all channels or, with a budget between two, a mix of both.

        The mix is even along the channels, so that no layer gets more than another.
        """
        budget = problem.items.budget(average_bits)
        mean = min(budget / int(problem.weight_counts.sum()), problem.max_bits)
        # What all channels up to each one may take together.
        allowed = torch.cumsum(problem.weight_counts * mean, 0)
        bits = torch.empty(len(problem.weight_counts), dtype=torch.int64)
        spent = 0
        pairs = zip(problem.weight_counts.tolist(), allowed.tolist(), strict=True)
        for channel, (count, until) in enumerate(pairs):
            affordable = int((until - spent + 1e-6) // count)
            chosen = min(max(affordable, int(mean)), problem.max_bits)
            bits[channel] = chosen
            spent += count * chosen
        return bits
