"""ShuffleNetV2 (Ma et al. 2018, arXiv 1807.11164)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.graph.kernels import channel_shuffle
from fertool.models.architecture import small_input
from fertool.models.arguments import check_args
from fertool.models.blocks import ConvNormAct, make_divisible
from fertool.registry import ARCHITECTURES


class ShuffleUnit(nn.Module):
    """Two branches of half the channels each, concatenated and shuffled.

    Figure 3, c and d, of the paper. With stride 1 the first branch is half of the input, unchanged;
    with stride 2 both branches read the whole input.
    """

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        half = outputs // 2
        self.splits_input = stride == 1
        # Convolutions and norms side by side, without blocks, as the reference's names have it.
        self.branch1 = nn.Sequential()
        if not self.splits_input:
            self.branch1 = nn.Sequential(
                *ConvNormAct(inputs, inputs, 3, stride, groups=inputs),
                *ConvNormAct(inputs, half, act=nn.ReLU),
            )
        branch2_inputs = half if self.splits_input else inputs
        self.branch2 = nn.Sequential(
            *ConvNormAct(branch2_inputs, half, act=nn.ReLU),
            *ConvNormAct(half, half, 3, stride, groups=half),
            *ConvNormAct(half, half, act=nn.ReLU),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, outputs, H, W]; channels of the two branches alternate."""
        if self.splits_input:
            first, rest = x.chunk(2, dim=1)
        else:
            first, rest = self.branch1(x), x
        both = torch.cat((first, self.branch2(rest)), dim=1)
        return channel_shuffle(both, 2)


class ShuffleNetV2(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes].

    `channels` are those of the stem, the three stages and the last convolution.
    """

    def __init__(
        self,
        channels: tuple[int, int, int, int, int],
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        stem_pool: bool,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(stem_stride=stem_stride, width_mult=width_mult, dropout=dropout)
        # Even, as the blocks halve them.
        scaled = [make_divisible(count * width_mult, divisor=2) for count in channels]
        stem, second, third, fourth, last = scaled
        self.conv1 = ConvNormAct(in_channels, stem, 3, stem_stride, act=nn.ReLU)
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else nn.Identity()
        self.stage2 = _stage(stem, second, depth=4)
        self.stage3 = _stage(second, third, depth=8)
        self.stage4 = _stage(third, fourth, depth=4)
        self.conv5 = ConvNormAct(fourth, last, act=nn.ReLU)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.maxpool(self.conv1(x))
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _stage(inputs: int, outputs: int, depth: int) -> nn.Sequential:
    """Return `depth` blocks, the first of which halves the map."""
    blocks = [ShuffleUnit(inputs, outputs, stride=2)]
    for _ in range(depth - 1):
        blocks.append(ShuffleUnit(outputs, outputs, stride=1))
    return nn.Sequential(*blocks)


@ARCHITECTURES.register("shufflenet_v2_x0_5")
@small_input(stem_stride=1)
def shufflenet_v2_x0_5(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ShuffleNetV2:
    """ShuffleNetV2 0.5x (Ma et al. 2018, table 5).

    `stem_pool` is the max pool with stride 2 after the stem.
    """
    channels = (24, 48, 96, 192, 1024)
    return ShuffleNetV2(
        channels,
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )


@ARCHITECTURES.register("shufflenet_v2_x1_0")
@small_input(stem_stride=1)
def shufflenet_v2_x1_0(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ShuffleNetV2:
    """ShuffleNetV2 1x (Ma et al. 2018, table 5).

    `stem_pool` is the max pool with stride 2 after the stem.
    """
    channels = (24, 116, 232, 464, 1024)
    return ShuffleNetV2(
        channels,
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )
