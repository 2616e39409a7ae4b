"""In which number format a network computes while it trains or teaches; weights and losses stay float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from fertool.config.training import PrecisionName

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


_BF16_CPUS = ("avx512_bf16", "amx_bf16")
"""What processors call the instructions that multiply bf16 numbers."""


def resolve_precision(name: PrecisionName, device: torch.device, module: nn.Module) -> torch.dtype:
    """Return the format of that name; 'auto' is bf16 where hardware has it and `module` gains from it, else fp32.

    On a CPU with bf16 instructions ResNets train 1.4 to 2 times as fast, networks with depthwise convolutions half as
    fast (`benchmarks/training.py`), and so it is on a GPU, a little (MobileNetV3-Large at 48 pixels on an H200: 24 ms
    a step, 20 in fp32): what counts is the structure, so that a machine always decides alike.
    """
    if name != "auto":
        return _TYPES[name]
    if device.type == "cuda":
        able = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        # Older versions of PyTorch do not tell.
        known: dict[str, Any] = (
            getattr(torch.cpu, "get_capabilities", dict)() if device.type == "cpu" else {}
        )
        able = any(known.get(name) for name in _BF16_CPUS)
    return torch.bfloat16 if able and not any(map(_is_grouped, module.modules())) else torch.float32


def _is_grouped(part: nn.Module) -> bool:
    return isinstance(part, nn.Conv2d) and part.groups > 1


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return the context in which operations that bear it compute in `dtype`; none do in float32's."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def grad_scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps float16's small gradients from vanishing; for other formats it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
