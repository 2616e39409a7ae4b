"""Evaluation mode for the duration of a block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put a network into eval mode; on exit each of its modules returns to the mode that it had."""
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        # Set one by one: `module.train()` would also switch parts that were in eval mode before.
        for part in was_training:
            part.training = True
