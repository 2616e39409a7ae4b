"""Eval mode for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Switch a network to eval mode; afterwards each of its modules has the mode that it came in."""
    was_training = [part for part in module.modules() if part.training]
    module.eval()
    try:
        yield
    finally:
        for part in was_training:
            part.training = True
