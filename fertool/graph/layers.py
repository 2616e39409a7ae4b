"""The modules of the operators that hold tensors, on the meta device, for the shape [N, C, …] of what they read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

Shape = torch.Size
_NOWHERE = "meta"
"""Not by `with torch.device`, which looks at every call of PyTorch: that took a third of the time to open a file."""


def conv2d(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a convolution over [N, C, H, W]."""
    return nn.Conv2d(read[1], **args, device=_NOWHERE)


def conv1d(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a convolution over [N, C, L]."""
    return nn.Conv1d(read[1], **args, device=_NOWHERE)


def conv_transpose2d(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a transposed convolution over [N, C, H, W]."""
    return nn.ConvTranspose2d(read[1], **args, device=_NOWHERE)


def linear(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a linear layer over the last axis."""
    return nn.Linear(read[-1], **args, device=_NOWHERE)


def batch_norm(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a batch norm of axis 1; raises ValueError for other than 2 to 4 axes."""
    if not 2 <= len(read) <= 4:
        raise ValueError(f"batch norm of {len(read)} axes")
    kind = nn.BatchNorm2d if len(read) == 4 else nn.BatchNorm1d
    return kind(read[1], **args, device=_NOWHERE)


def layer_norm(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a layer norm over the last axes."""
    axes = args["axes"]
    return nn.LayerNorm(
        list(read[-axes:]), args["eps"], args["affine"], args["bias"], device=_NOWHERE
    )


def group_norm(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a group norm of axis 1."""
    return nn.GroupNorm(args["num_groups"], read[1], args["eps"], args["affine"], device=_NOWHERE)


def prelu(args: Mapping[str, Any], read: Shape) -> nn.Module:
    """Return a PReLU with one slope, or one for each channel."""
    return nn.PReLU(1 if args["shared"] else read[1], device=_NOWHERE)
