"""Which processor the tensors live on."""

from __future__ import annotations

import torch
from torch import nn

from fertool.errors import UsageError


def resolve_device(name: str | torch.device = "auto") -> torch.device:
    """Return the device of that name; 'auto' is the first CUDA GPU if there is one, else the CPU.

    Raises UsageError for a name that is none, and for a device that this machine or this PyTorch lacks.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise UsageError(f"--device {name}: no such device here", "use auto, cpu, cuda or cuda:N") from None
    if device.type == "meta":
        raise UsageError("--device meta: computes nothing", "use auto, cpu, cuda or cuda:N")
    return device


def place(module: nn.Module, device: torch.device, memory_format: torch.memory_format) -> nn.Module:
    """Move a module's tensors, in place, to a device and a memory format; returns the module."""
    return module.to(device=device, memory_format=memory_format)  # type: ignore[call-overload,no-any-return]
