"""What a network answers to each image of a data set."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.modes import eval_mode
from fertool.spec import InputSpec


@torch.no_grad()
def predict_logits(
    module: nn.Module,
    dataset: FaceDataset,
    input: InputSpec,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return logits float32 [N, K] on the CPU for every image in order; the module ends in the mode it came in."""
    with eval_mode(module):
        parts = [
            module(to_input(images.to(device), input)).to(torch.float32) for images, _ in dataset.batches(batch_size)
        ]
    return torch.cat(parts).cpu() if parts else torch.empty(0, len(dataset.classes))
