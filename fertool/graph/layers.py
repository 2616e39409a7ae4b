"""The modules of operators with tensors, on the meta device, for an input of shape [N, C, …]."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from fertool.graph.batch_norm import BatchNorm1d, BatchNorm2d
from fertool.graph.depthwise_conv import DepthwiseConv2d

# An argument rather than `with torch.device`, which intercepts every call of PyTorch: that took a
# third of the time to open a file.
_META = "meta"


def conv2d(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a convolution over [N, C, H, W]."""
    channels = input_shape[1]
    if channels > 1 and args["groups"] == args["out_channels"] == channels:
        return DepthwiseConv2d(channels, **args, device=_META)
    return nn.Conv2d(channels, **args, device=_META)


def conv1d(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a convolution over [N, C, L]."""
    return nn.Conv1d(input_shape[1], **args, device=_META)


def conv_transpose2d(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a transposed convolution over [N, C, H, W]."""
    return nn.ConvTranspose2d(input_shape[1], **args, device=_META)


def linear(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a linear layer over the last axis."""
    return nn.Linear(input_shape[-1], **args, device=_META)


def batch_norm(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a batch norm of axis 1; raises ValueError for other than 2 to 4 axes."""
    if not 2 <= len(input_shape) <= 4:
        raise ValueError(f"batch norm of {len(input_shape)} axes")
    if len(input_shape) == 4:
        return BatchNorm2d(input_shape[1], **args, device=_META)
    return BatchNorm1d(input_shape[1], **args, device=_META)


def layer_norm(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a layer norm over the last axes."""
    return nn.LayerNorm(
        list(input_shape[-args["axes"] :]),
        eps=args["eps"],
        elementwise_affine=args["affine"],
        bias=args["bias"],
        device=_META,
    )


def group_norm(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a group norm of axis 1."""
    return nn.GroupNorm(
        args["num_groups"],
        input_shape[1],
        eps=args["eps"],
        affine=args["affine"],
        device=_META,
    )


def prelu(args: Mapping[str, Any], input_shape: torch.Size) -> nn.Module:
    """Return a PReLU with one slope, or one for each channel."""
    slopes = input_shape[1]
    if args["shared"]:
        slopes = 1
    return nn.PReLU(slopes, device=_META)
