"""The number format of a network's computation; weights and losses stay float32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fertool.config.training import PrecisionName

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
_BF16_CAPABILITIES = ("avx512_bf16", "amx_bf16")
"""Processors' instruction sets that multiply bf16 numbers."""


def resolve_precision(name: PrecisionName, device: torch.device, module: nn.Module) -> torch.dtype:
    """Return the dtype of that name.

    'auto' is bf16 where the hardware has it and `module` gains from it, else fp32. On a CPU with
    bf16 instructions ResNets train 1.4 to 2 times as fast, networks with depthwise convolutions
    half as fast (`benchmarks/training.py`), and a GPU behaves the same, if less so
    (MobileNetV3-Large at 48 pixels on an H200: 24 ms a step, 20 in fp32). The structure decides and
    not a measurement, so that a machine always chooses the same.
    """
    if name != "auto":
        return _DTYPES[name]
    if _has_grouped_convolution(module) or not _supports_bf16(device):
        return torch.float32
    return torch.bfloat16


def _supports_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        # Without emulation, which older GPUs offer, and which is slower than fp32.
        supported: bool = torch.cuda.is_bf16_supported(including_emulation=False)
        return supported
    if device.type != "cpu" or not hasattr(torch.cpu, "get_capabilities"):
        # Older versions of PyTorch do not report the CPU's capabilities.
        return False
    capabilities: Mapping[str, Any] = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in _BF16_CAPABILITIES)


def _has_grouped_convolution(module: nn.Module) -> bool:
    return any(isinstance(part, nn.Conv2d) and part.groups > 1 for part in module.modules())


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return the autocast context of a dtype; that of float32 changes nothing."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def grad_scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Return the gradient scaler, which keeps float16's small gradients from vanishing.

    It is disabled for other dtypes.
    """
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
