"""How many threads a runtime computes with, where that is a setting of the whole process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from fertool.registry import RUNTIMES
from fertool.runtime.predictor import Predictor
from fertool.runtime.runtime import Runtime


@contextmanager
def limited_threads(predictors: Sequence[Predictor], count: int) -> Iterator[None]:
    """Let the runtimes of the predictors compute with `count` threads in the block."""
    # Of these alone, so that ONNX files run without torch in memory.
    runtimes = sorted({predictor.runtime for predictor in predictors})
    with ExitStack() as stack:
        for name in runtimes:
            member: type[Runtime] = RUNTIMES.load(name)
            stack.enter_context(member().limited_threads(count))
        yield
