"""The device of a computation, and the memory format of modules on it."""

from __future__ import annotations

import torch
from torch import nn

from fertool import distributed
from fertool.errors import UsageError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of that name; 'auto' is the first CUDA GPU if there is one, else the CPU.

    Raises UsageError for an unknown name, for a device that this machine or this PyTorch lacks, and
    for too few GPUs: each process of a data-parallel run needs one of its own.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        # Only an allocation tells whether the device is there.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(
            f"``device={name}``: no such device here", "use auto, cpu, cuda or cuda:N"
        ) from None
    if device.type == "meta":
        raise UsageError("``device=meta``: computes nothing", "use auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and distributed.world_size() > 1:
        _require_gpu_per_process(device)
    return device


def _require_gpu_per_process(device: torch.device) -> None:
    # `cuda` alone: each process has chosen its current GPU when it joined the group.
    if ":" in str(device):
        raise UsageError(
            f"``device={device}``: the processes need a GPU each",
            "use cuda: each takes one of its own",
        )
    gpus = torch.cuda.device_count()
    processes = distributed.local_world_size()
    if gpus < processes:
        raise UsageError(
            f"``device=cuda``: {gpus} GPUs for {processes} processes",
            "start as many as there are, or use cpu",
        )


def place(
    module: nn.Module, device: torch.device, memory_format: torch.memory_format | None = None
) -> nn.Module:
    """Move a module's tensors, in place, to a device and a memory format; returns the module.

    The default format is channels last on the CPU, where depthwise convolutions run faster and the
    others no slower. On a GPU cuDNN prepares each new shape in that layout for so long
    (MobileNetV3-Large on an H200: 18 s before the first epoch, and again for each size of growing
    images) that small networks never make up for it.
    """
    if memory_format is None:
        memory_format = torch.channels_last if device.type == "cpu" else torch.contiguous_format
    module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload]
    return module
