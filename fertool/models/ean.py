"""EAN, a lightweight network of depthwise-separable convolutions with local channel attention.

Of the source only the abstract is at hand. It gives the two parts, a strict bound on parameters and computation, and
batch norm (which its pruning scores); everything else is chosen here, for 48 x 48 pixels and for INT8:

- a plain 3 x 3 stem of 32 channels, then three stages of 64, 128 and 256 channels with 2, 3 and 4 blocks, each stage
  halving the map: 48 pixels end as 6 x 6 (total stride 8; `stem_stride=2`, for larger images, makes it 16);
- a block is two separable convolutions (3 x 3 depthwise, 1 x 1) and a shortcut, which is a 1 x 1 convolution where the
  map shrinks: Xception's form (Chollet 2017), with BN and ReLU behind every convolution as in MobileNet (Howard et
  al. 2017) except where the shortcut joins, since a ReLU costs an integer network nothing and tightens its ranges;
- the attention scales the block's result before the sum, where ECA-Net (Wang et al. 2020) puts it in a ResNet. Its
  kernel follows from the unpruned width by that paper's equation 12 and stays when channels are pruned.

0.68 M parameters with 7 classes, 46 M multiply-accumulates at 48 pixels.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool.models.layers import (
    ConvNormAct,
    EfficientChannelAttention,
    Factory,
    check_args,
    check_widths,
    eca_kernel,
    initialise_convolutions_,
    make_divisible,
)
from fertool.models.registry import register

_STEM = 32
_STAGES = {"layer1": (64, 2), "layer2": (128, 3), "layer3": (256, 4)}
"""Channels and number of blocks."""


class SeparableBlock(nn.Module):
    """Two separable convolutions, local channel attention with a kernel of `eca`, and a shortcut."""

    def __init__(self, source: int, inner: int, out: int, *, stride: int, eca: int) -> None:
        super().__init__()
        self.sep1 = _separable(source, inner, stride, nn.ReLU)
        self.sep2 = _separable(inner, out, 1, None)
        self.eca = EfficientChannelAttention(out, eca)
        self.downsample = ConvNormAct(source, out, stride=stride) if stride > 1 else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        result: Tensor = self.relu(self.eca(self.sep2(self.sep1(x))) + shortcut)
        return result


def _separable(inputs: int, outputs: int, stride: int, act: Factory | None) -> nn.Sequential:
    return nn.Sequential(
        ConvNormAct(inputs, inputs, 3, stride, groups=inputs, act=nn.ReLU), ConvNormAct(inputs, outputs, act=act)
    )


class EAN(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(strides={"stem_stride": stem_stride}, width_mult=width_mult, probabilities={"dropout": dropout})
        unpruned = _default_widths(width_mult)
        self.blocks = {
            f"{name}.{index}": (f"{name}.{index}.sep1",)
            for name, (_, depth) in _STAGES.items()
            for index in range(1, depth)
        }
        self.widths = check_widths(widths, unpruned, self.blocks)
        self.stem = ConvNormAct(in_channels, self.widths["stem"], 3, stem_stride, act=nn.ReLU)
        self.layer1 = self._stage("layer1", "stem", unpruned)
        self.layer2 = self._stage("layer2", "layer1", unpruned)
        self.layer3 = self._stage("layer3", "layer2", unpruned)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.widths["layer3"], num_classes)
        initialise_convolutions_(self)

    def _stage(self, name: str, before: str, unpruned: Mapping[str, int]) -> nn.Sequential:
        source, out, eca = self.widths[before], self.widths[name], eca_kernel(unpruned[name])
        inner = [self.widths[f"{name}.{index}.sep1"] for index in range(_STAGES[name][1])]
        return nn.Sequential(
            SeparableBlock(source, inner[0], out, stride=2, eca=eca),
            *(SeparableBlock(out, count, out, stride=1, eca=eca) if count else nn.Identity() for count in inner[1:]),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _default_widths(width_mult: float) -> dict[str, int]:
    widths = {"stem": make_divisible(_STEM * width_mult)}
    for stage, (channels, depth) in _STAGES.items():
        count = make_divisible(channels * width_mult)
        widths |= {stage: count, **{f"{stage}.{index}.sep1": count for index in range(depth)}}
    return widths


@register(stem_stride=1)
def ean(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> EAN:
    """EAN, the lightweight efficient-attention network of recipe 3; at most 1.0 M parameters."""
    return EAN(widths, num_classes, in_channels, stem_stride=stem_stride, width_mult=width_mult, dropout=dropout)
