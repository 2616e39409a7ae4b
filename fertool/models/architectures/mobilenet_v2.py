"""MobileNetV2: inverted residuals, linear bottlenecks (Sandler et al. 2018, arXiv 1801.04381)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.models.architecture import small_input
from fertool.models.arguments import check_args
from fertool.models.blocks import ConvNormAct, initialize_, make_divisible
from fertool.registry import ARCHITECTURES


class LinearBottleneck(nn.Module):
    """Expand, filter each channel, project without activation; a shortcut where shapes agree.

    The block of MobileNetV2, an inverted residual with a linear bottleneck (section 3.3 of the
    paper). That of `fertool.models.blocks` has other names of its tensors.
    """

    def __init__(self, inputs: int, expansion: int, outputs: int, stride: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion > 1:
            layers.append(ConvNormAct(inputs, hidden, act=nn.ReLU6))
        layers.append(ConvNormAct(hidden, hidden, 3, stride, groups=hidden, act=nn.ReLU6))
        # The last convolution and its batch norm stand by themselves, as the reference's names
        # have it.
        layers.extend(ConvNormAct(hidden, outputs))
        self.conv = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        result: Tensor = self.conv(x)
        if self.has_shortcut:
            result = x + result
        return result


class MobileNetV2(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        early_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(
            stem_stride=stem_stride,
            early_stride=early_stride,
            width_mult=width_mult,
            dropout=dropout,
        )
        # Table 2 of the paper: expansion, channels, blocks, stride of the first block.
        stages = (
            (1, 16, 1, 1),
            (6, 24, 2, early_stride),
            (6, 32, 3, 2),
            (6, 64, 4, 2),
            (6, 96, 3, 1),
            (6, 160, 3, 2),
            (6, 320, 1, 1),
        )
        channels = make_divisible(32 * width_mult)
        # Section 4 of the paper: the last convolution does not become narrower.
        last = make_divisible(1280 * max(1.0, width_mult))
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, 3, stem_stride, act=nn.ReLU6)]
        for expansion, planes, depth, first_stride in stages:
            outputs = make_divisible(planes * width_mult)
            for index in range(depth):
                stride = first_stride if index == 0 else 1
                layers.append(LinearBottleneck(channels, expansion, outputs, stride))
                channels = outputs
        self.features = nn.Sequential(*layers, ConvNormAct(channels, last, act=nn.ReLU6))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(last, num_classes))
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        pooled = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


@ARCHITECTURES.register("mobilenet_v2")
@small_input(stem_stride=1)
def mobilenet_v2(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
) -> MobileNetV2:
    """MobileNetV2 (Sandler et al. 2018, table 2).

    `early_stride` is the stride of the 24-channel stage.
    """
    return MobileNetV2(
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
    )
