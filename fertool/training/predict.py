"""The logits of a network on each image of a data set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.inference import eval_mode
from fertool.spec import InputSpec, affordable_batch


@torch.no_grad()
def predict_logits(
    module: nn.Module,
    dataset: FaceDataset,
    input: InputSpec,
    *,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return logits float32 [N, K] on the CPU for every image in order.

    The module's training mode is unchanged afterwards. `on_progress` counts images.
    """
    parts: list[Tensor] = []
    done = 0
    with eval_mode(module):
        for images, _ in dataset.batches(affordable_batch(batch_size, input.size)):
            logits = module(to_input(images.to(device), input))
            parts.append(logits.to(torch.float32))
            done += len(logits)
            on_progress(done, len(dataset))
    if not parts:
        return torch.empty(0, len(dataset.classes))
    # Copied once at the end, so that no batch waits for the device.
    return torch.cat(parts).cpu()
