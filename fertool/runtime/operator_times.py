"""The time of a pass by operator, collected from the profiler of a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fertool.results import OperatorTime
from fertool.runtime.predictor import Forward, Predictor

PROFILED_PASSES = 100
"""Passes whose times are averaged."""
_WARMUP_PASSES = 10
MICROSECOND = 1e-6
"""In seconds: the unit of the profilers."""
Images = NDArray[np.uint8]


@dataclass
class OperatorTimes:
    """The seconds and calls of operators, by name, summed over all passes."""

    seconds: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    def add(self, operator: str, seconds: float, calls: int = 1) -> None:
        """Add calls of an operator that together took so many seconds."""
        self.seconds[operator] = self.seconds.get(operator, 0.0) + seconds
        self.calls[operator] = self.calls.get(operator, 0) + calls

    def clear(self) -> None:
        """Forget everything, as after passes that only warm up."""
        self.seconds.clear()
        self.calls.clear()

    def of_a_pass(self, passes: int = PROFILED_PASSES) -> tuple[OperatorTime, ...]:
        """Return the means over so many passes, the longest time first."""
        total_s = sum(self.seconds.values())
        found = []
        for operator, seconds in sorted(self.seconds.items(), key=lambda item: -item[1]):
            fraction = seconds / total_s if total_s else 0.0
            calls = self.calls[operator] / passes
            found.append(OperatorTime(operator, calls, seconds / passes, fraction))
        return tuple(found)


@dataclass(frozen=True)
class ProfiledPasses:
    """The passes that a profiler watches, and those before it, each over one of the batches."""

    passes: Sequence[Forward]
    warmup: int = _WARMUP_PASSES

    def warm_up(self) -> None:
        """Run the passes whose times do not count: the first of them allocate memory."""
        self._run(self.warmup)

    def run(self) -> None:
        """Run the passes whose times count."""
        self._run(PROFILED_PASSES)

    def _run(self, count: int) -> None:
        for number in range(count):
            self.passes[number % len(self.passes)]()


def profiled_passes(predictor: Predictor, batches: Sequence[Images]) -> ProfiledPasses:
    """Return passes of a predictor over the batches, uint8 [B, C, S, S] each."""
    return ProfiledPasses([predictor.prepare_pass(batch) for batch in batches])
