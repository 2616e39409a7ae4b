"""EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946)."""

from __future__ import annotations

import math
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
    initialize_convolutions_,
    make_divisible,
)
from fertool.registry import ARCHITECTURES


class Stage(NamedTuple):
    """One line of the paper's table 1: `depth` blocks, the first of them with the stride."""

    expansion: int
    kernel: int
    stride: int
    out: int
    depth: int


# Table 1 of the paper, without the stem and the last layers.
STAGES = (
    Stage(1, 3, 1, 16, 1),
    Stage(6, 3, 2, 24, 2),
    Stage(6, 5, 2, 40, 2),
    Stage(6, 3, 2, 80, 3),
    Stage(6, 5, 1, 112, 3),
    Stage(6, 5, 2, 192, 4),
    Stage(6, 3, 1, 320, 1),
)


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
        channels = make_divisible(32 * width_mult)
        stem = ConvNormAct(in_channels, channels, 3, stem_stride, act=act)
        blocks = _make_stages(channels, early_stride, width_mult, stochastic_depth, act)
        channels = make_divisible(STAGES[-1].out * width_mult)
        last = 4 * channels
        # Ahead of the last convolution, whose initial values follow it in the stream of draws.
        fc = nn.Linear(last, num_classes)
        self.features = nn.Sequential(stem, *blocks, ConvNormAct(channels, last, act=act))
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


def _make_stages(
    channels: int, early_stride: int, width_mult: float, stochastic_depth: float, act: Factory
) -> list[nn.Module]:
    """Return the stages behind a stem of so many channels; the second one has `early_stride`."""
    strides = [stage.stride for stage in STAGES]
    strides[1] = early_stride
    total = sum(stage.depth for stage in STAGES)
    block_number = 0
    stages: list[nn.Module] = []
    for stage, first_stride in zip(STAGES, strides, strict=True):
        outputs = make_divisible(stage.out * width_mult)
        blocks = []
        for index in range(stage.depth):
            hidden = make_divisible(channels * stage.expansion)
            # A quarter of the block's inputs, as in the reference implementation.
            attention = SqueezeExcitation(hidden, max(1, channels // 4), act=act)
            block = InvertedResidual(
                inputs=channels,
                hidden=hidden,
                outputs=outputs,
                kernel=stage.kernel,
                stride=first_stride if index == 0 else 1,
                act=act,
                attention=attention,
                # The later a block, the more often its branch is dropped: linearly from 0.
                drop_branch=stochastic_depth * block_number / total,
            )
            blocks.append(block)
            block_number += 1
            channels = outputs
        stages.append(nn.Sequential(*blocks))
    return stages


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
