"""The logits of a network on each image of a data set."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fertool.data.dataset import FaceDataset
from fertool.data.pixels import channels_last, to_input
from fertool.inference import eval_mode
from fertool.spec import InputSpec, affordable_batch

_BATCH = 256
# The maps of more images than this leave the cache of a processor: the same network takes up to
# twice the time, and several times the memory.
_CPU_BATCH = 32


@torch.no_grad()
def predict_logits(
    module: nn.Module,
    dataset: FaceDataset,
    input: InputSpec,
    *,
    batch_size: int | None = None,
    device: torch.device | str = "cpu",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Tensor:
    """Return logits float32 [N, K] on the CPU for every image in order.

    The module's training mode is unchanged afterwards. The default of `batch_size` suits the
    `device`. `on_progress` counts images.
    """
    if batch_size is None:
        batch_size = _CPU_BATCH if torch.device(device).type == "cpu" else _BATCH
    parts: list[Tensor] = []
    done = 0
    with eval_mode(module):
        for images, _ in dataset.batches(affordable_batch(batch_size, input.size)):
            logits = module(channels_last(to_input(images.to(device), input)))
            parts.append(logits.to(torch.float32))
            done += len(logits)
            on_progress(done, len(dataset))
    if not parts:
        return torch.empty(0, len(dataset.classes))
    # Copied once at the end, so that no batch waits for the device.
    return torch.cat(parts).cpu()
