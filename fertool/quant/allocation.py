"""The interface of an allocation: how many bits each channel gets under a budget."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from fertool.errors import FertoolError
from fertool.quant.allocation_problem import AllocationProblem
from fertool.registry import ALLOCATIONS
from fertool.spec import WEIGHT_BITS


@dataclass(frozen=True)
class BitEvaluator:
    """What an allocation needs that evaluates bits on images.

    `accuracy` measures the network with some bits [C], from 0 to 1. `on_progress` counts these
    evaluations.
    """

    accuracy: Callable[[Tensor], float]
    seed: int = 0
    on_progress: Callable[[int, int], None] = lambda done, total: None


class Allocation(ABC):
    """A way to allocate bits; a member can be made without arguments.

    `needs_traces`: it goes by Hessian traces. `needs_divergences`: by what each channel's rounding
    does to the outputs. `needs_images`: it evaluates bits on images.
    """

    needs_traces: ClassVar[bool] = True
    needs_divergences: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False

    @abstractmethod
    def allocate(
        self, problem: AllocationProblem, average_bits: float, evaluator: BitEvaluator | None
    ) -> Tensor:
        """Return the bits of each channel, int64 [C].

        Their mean over the weights is `average_bits` or less. `evaluator` is None unless the
        allocation `needs_images`.
        """


def load_allocation(name: str) -> Allocation:
    """Return the allocation of this name; raises UsageError with the choices for another name."""
    member: type[Allocation] = ALLOCATIONS.load(name)
    return member()


def allocate(
    name: str,
    problem: AllocationProblem,
    average_bits: float,
    evaluator: BitEvaluator | None = None,
) -> Tensor:
    """Return the bits of each channel, int64 [C], by the allocation of this name.

    Their mean over the weights is `average_bits` or less. Raises FertoolError for less than 2 bits
    a weight, and UsageError for another name.
    """
    allocation = load_allocation(name)
    if average_bits < WEIGHT_BITS[0]:
        raise FertoolError(
            f"a budget of {average_bits:.2f} bits a weight: the least is {WEIGHT_BITS[0]}",
            "ask for more bits or bytes",
        )
    return allocation.allocate(problem, average_bits, evaluator)
