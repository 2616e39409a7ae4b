"""In which number format the network computes while it trains; weights and losses stay float32."""

from __future__ import annotations

import torch

from fertool.train.config import PrecisionName

_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_precision(name: PrecisionName, device: torch.device) -> torch.dtype:
    """Return the format of that name; 'auto' is bf16 on a CUDA device that has it in hardware, else fp32."""
    if name != "auto":
        return _TYPES[name]
    with_bf16 = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if with_bf16 else torch.float32


def autocast(dtype: torch.dtype, device: torch.device) -> torch.autocast:
    """Return the context in which operations that bear it compute in `dtype`; none do in float32's."""
    return torch.autocast(device.type, dtype=dtype, enabled=dtype != torch.float32)


def grad_scaler(dtype: torch.dtype, device: torch.device) -> torch.amp.GradScaler:
    """Return what keeps float16's small gradients from vanishing; for other formats it does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype == torch.float16)
