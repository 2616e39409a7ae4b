"""How many threads PyTorch computes with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from fertool.runtime.predictor import Predictor
from fertool.runtime.sessions import TORCH


@contextmanager
def torch_threads(predictors: Sequence[Predictor], count: int) -> Iterator[None]:
    """Let PyTorch, where a predictor runs in it, compute with `count` threads in the block.

    It has only a setting of the whole process, which the block's end takes back.
    """
    # Without a predictor of torch nothing here imports it: ONNX files run without it in memory.
    if all(predictor.runtime != TORCH for predictor in predictors):
        yield
        return

    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
