"""EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fertool.models.architecture import small_input
from fertool.models.arguments import check_args, find_activation
from fertool.models.blocks import (
    ConvNormAct,
    InvertedResidual,
    SqueezeExcitation,
    initialize_convolutions_,
    make_divisible,
)
from fertool.registry import ARCHITECTURES


class EfficientNet(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        early_stride: int,
        width_mult: float,
        dropout: float,
        stochastic_depth: float,
        activation: str,
    ) -> None:
        super().__init__()
        check_args(
            stem_stride=stem_stride,
            early_stride=early_stride,
            width_mult=width_mult,
            dropout=dropout,
            stochastic_depth=stochastic_depth,
        )
        act = find_activation(activation)
        # Table 1 of the paper: expansion, kernel, stride of the first block, channels, blocks.
        stages = (
            (1, 3, 1, 16, 1),
            (6, 3, early_stride, 24, 2),
            (6, 5, 2, 40, 2),
            (6, 3, 2, 80, 3),
            (6, 5, 1, 112, 3),
            (6, 5, 2, 192, 4),
            (6, 3, 1, 320, 1),
        )
        # The later a block, the more often its branch is dropped: linearly from 0.
        total = sum(depth for *_, depth in stages)
        block_number = 0
        channels = make_divisible(32 * width_mult)
        layers: list[nn.Module] = [ConvNormAct(in_channels, channels, 3, stem_stride, act=act)]
        for expansion, kernel, first_stride, planes, depth in stages:
            outputs = make_divisible(planes * width_mult)
            blocks = []
            for index in range(depth):
                hidden = make_divisible(channels * expansion)
                # A quarter of the block's inputs, as in the reference implementation.
                attention = SqueezeExcitation(hidden, max(1, channels // 4), act=act)
                block = InvertedResidual(
                    inputs=channels,
                    hidden=hidden,
                    outputs=outputs,
                    kernel=kernel,
                    stride=first_stride if index == 0 else 1,
                    act=act,
                    attention=attention,
                    drop_branch=stochastic_depth * block_number / total,
                )
                blocks.append(block)
                block_number += 1
                channels = outputs
            layers.append(nn.Sequential(*blocks))
        last = 4 * channels
        # Ahead of the last convolution, whose initial values follow it in the stream of draws.
        fc = nn.Linear(last, num_classes)
        self.features = nn.Sequential(*layers, ConvNormAct(channels, last, act=act))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), fc)
        initialize_convolutions_(self)
        # Of the reference implementation: the range follows from the outputs.
        reach = 1 / math.sqrt(num_classes)
        nn.init.uniform_(fc.weight, -reach, reach)
        nn.init.zeros_(fc.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        pooled = self.avgpool(self.features(x))
        logits: Tensor = self.classifier(torch.flatten(pooled, 1))
        return logits


@ARCHITECTURES.register("efficientnet_b0")
@small_input(early_stride=1)
def efficientnet_b0(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    stochastic_depth: float = 0.2,
    activation: str = "silu",
) -> EfficientNet:
    """EfficientNet-B0 (Tan and Le 2019, table 1).

    `early_stride` is the stride of the 24-channel stage.
    """
    return EfficientNet(
        num_classes=num_classes,
        in_channels=in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        stochastic_depth=stochastic_depth,
        activation=activation,
    )
