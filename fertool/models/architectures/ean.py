"""EAN, a lightweight network of depthwise-separable convolutions with local channel attention.

Of the source only the abstract is at hand. It gives the two parts, a strict bound on parameters and
computation, and batch norm (which its pruning scores); everything else is chosen here, for 48 x 48
pixels and for INT8:

- a plain 3 x 3 stem of 32 channels, then three stages of 64, 128 and 256 channels with 2, 3 and 4
  blocks, each stage halving the map: 48 pixels end as 6 x 6 (total stride 8; `stem_stride=2`, for
  larger images, makes it 16);
- a block is two separable convolutions (3 x 3 depthwise, 1 x 1) and a shortcut, which is a 1 x 1
  convolution where the map shrinks: Xception's form (Chollet 2017), with BN and ReLU behind every
  convolution as in MobileNet (Howard et al. 2017) except where the shortcut joins, since a ReLU
  costs an integer network nothing and tightens its ranges;
- the attention scales the block's result before the sum, where ECA-Net (Wang et al. 2020) puts it
  in a ResNet. Its kernel follows from the unpruned number of channels by that paper's equation 12
  and stays when channels are pruned.

0.68 M parameters with 7 classes, 46 M multiply-accumulates at 48 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.models.architecture import small_input
from fertool.models.arguments import check_args
from fertool.models.blocks import (
    ConvNormAct,
    EfficientChannelAttention,
    eca_kernel,
    initialize_convolutions_,
    make_divisible,
)
from fertool.registry import ARCHITECTURES


class SeparableBlock(nn.Module):
    """Two separable convolutions, local channel attention, and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.sep1 = nn.Sequential(
            ConvNormAct(inputs, inputs, 3, stride, groups=inputs, act=nn.ReLU),
            ConvNormAct(inputs, outputs, act=nn.ReLU),
        )
        self.sep2 = nn.Sequential(
            ConvNormAct(outputs, outputs, 3, groups=outputs, act=nn.ReLU),
            ConvNormAct(outputs, outputs),
        )
        self.eca = EfficientChannelAttention(eca_kernel(outputs))
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = ConvNormAct(inputs, outputs, stride=stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        shortcut = self.downsample(x)
        result: Tensor = self.relu(self.eca(self.sep2(self.sep1(x))) + shortcut)
        return result


class EAN(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(stem_stride=stem_stride, width_mult=width_mult, dropout=dropout)
        stem = make_divisible(32 * width_mult)
        first = make_divisible(64 * width_mult)
        second = make_divisible(128 * width_mult)
        third = make_divisible(256 * width_mult)
        self.stem = ConvNormAct(in_channels, stem, 3, stem_stride, act=nn.ReLU)
        self.layer1 = _stage(stem, first, depth=2)
        self.layer2 = _stage(first, second, depth=3)
        self.layer3 = _stage(second, third, depth=4)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(third, num_classes)
        initialize_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.layer3(self.layer2(self.layer1(self.stem(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """Return `depth` blocks, the first of which halves the map."""
    blocks = [SeparableBlock(inputs, outputs, stride=2)]
    for _ in range(depth - 1):
        blocks.append(SeparableBlock(outputs, outputs))
    return nn.Sequential(*blocks)


@ARCHITECTURES.register("ean")
@small_input(stem_stride=1)
def ean(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> EAN:
    """EAN, the lightweight efficient-attention network of recipe 3; at most 1.0 M parameters."""
    return EAN(num_classes, in_channels, stem_stride, width_mult, dropout)
