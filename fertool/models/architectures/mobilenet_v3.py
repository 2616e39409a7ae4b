"""MobileNetV3, Large and Small (Howard et al. 2019, arXiv 1905.02244)."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from fertool.models.architecture import small_input
from fertool.models.arguments import check_args, find_activation
from fertool.models.blocks import (
    ConvNormAct,
    Factory,
    InvertedResidual,
    SqueezeExcitation,
    initialize_,
    make_divisible,
)
from fertool.registry import ARCHITECTURES


class Row(NamedTuple):
    """One line of the paper's tables 1 and 2: a block."""

    kernel: int
    hidden: int
    out: int
    squeeze: bool
    hardswish: bool
    stride: int


# Tables 1 and 2 of the paper, without the stem and the last layers.
LARGE = (
    Row(3, 16, 16, False, False, 1),
    Row(3, 64, 24, False, False, 2),
    Row(3, 72, 24, False, False, 1),
    Row(5, 72, 40, True, False, 2),
    Row(5, 120, 40, True, False, 1),
    Row(5, 120, 40, True, False, 1),
    Row(3, 240, 80, False, True, 2),
    Row(3, 200, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 184, 80, False, True, 1),
    Row(3, 480, 112, True, True, 1),
    Row(3, 672, 112, True, True, 1),
    Row(5, 672, 160, True, True, 2),
    Row(5, 960, 160, True, True, 1),
    Row(5, 960, 160, True, True, 1),
)
SMALL = (
    Row(3, 16, 16, True, False, 2),
    Row(3, 72, 24, False, False, 2),
    Row(3, 88, 24, False, False, 1),
    Row(5, 96, 40, True, True, 2),
    Row(5, 240, 40, True, True, 1),
    Row(5, 240, 40, True, True, 1),
    Row(5, 120, 48, True, True, 1),
    Row(5, 144, 48, True, True, 1),
    Row(5, 288, 96, True, True, 2),
    Row(5, 576, 96, True, True, 1),
    Row(5, 576, 96, True, True, 1),
)

# The reference implementation's, which its checkpoints were trained with.
_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)


class Trunk(nn.Sequential):
    """Stem, blocks and last convolution: [N, in_channels, S, S] to [N, out_channels, s, s].

    The first strided block gets `early_stride`; `act` stands where the paper has h-swish.
    """

    def __init__(
        self,
        rows: tuple[Row, ...],
        in_channels: int,
        stem_stride: int,
        early_stride: int,
        width_mult: float,
        act: Factory,
    ) -> None:
        strides = [row.stride for row in rows]
        # The first strided block: a stride of 1 keeps the resolution of small images there.
        strides[strides.index(2)] = early_stride
        channels = make_divisible(16 * width_mult)
        layers: list[nn.Module] = [
            ConvNormAct(in_channels, channels, 3, stem_stride, norm=_norm, act=act)
        ]
        for row, stride in zip(rows, strides, strict=True):
            hidden = make_divisible(row.hidden * width_mult)
            outputs = make_divisible(row.out * width_mult)
            attention = None
            if row.squeeze:
                # Section 5.3 of the paper: a quarter of the hidden channels.
                squeezed = make_divisible(hidden // 4)
                attention = SqueezeExcitation(hidden, squeezed, scale_act=nn.Hardsigmoid)
            block = InvertedResidual(
                inputs=channels,
                hidden=hidden,
                outputs=outputs,
                kernel=row.kernel,
                stride=stride,
                act=act if row.hardswish else nn.ReLU,
                norm=_norm,
                attention=attention,
            )
            layers.append(block)
            channels = outputs
        super().__init__(*layers, ConvNormAct(channels, 6 * channels, norm=_norm, act=act))
        self.out_channels = 6 * channels


class MobileNetV3(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]; `hidden` units in the classifier."""

    def __init__(
        self,
        rows: tuple[Row, ...],
        hidden: int,
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        early_stride: int,
        width_mult: float,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        check_args(
            stem_stride=stem_stride,
            early_stride=early_stride,
            width_mult=width_mult,
            dropout=dropout,
        )
        act = find_activation(activation)
        hidden = make_divisible(hidden * width_mult)
        self.features = Trunk(rows, in_channels, stem_stride, early_stride, width_mult, act)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(self.features.out_channels, hidden),
            act(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )
        initialize_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        pooled = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


@ARCHITECTURES.register("mobilenet_v3_large")
@small_input(early_stride=1)
def mobilenet_v3_large(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    activation: str = "hardswish",
) -> MobileNetV3:
    """MobileNetV3-Large (Howard et al. 2019, table 1).

    `early_stride` is the stride of the first 24-channel block.
    """
    return MobileNetV3(
        LARGE,
        hidden=1280,
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        activation=activation,
    )


@ARCHITECTURES.register("mobilenet_v3_small")
@small_input(early_stride=1)
def mobilenet_v3_small(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    activation: str = "hardswish",
) -> MobileNetV3:
    """MobileNetV3-Small (Howard et al. 2019, table 2).

    `early_stride` is the stride of the first block, of 16 channels.
    """
    return MobileNetV3(
        SMALL,
        hidden=1024,
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        activation=activation,
    )
