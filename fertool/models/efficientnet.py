"""EfficientNet-B0 (Tan and Le 2019, arXiv 1905.11946)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor, nn

from fertool.models.activations import find_activation
from fertool.models.layers import (
    BlockPlan,
    ConvNormAct,
    Factory,
    SqueezeExcitation,
    check_args,
    check_widths,
    first_strided,
    initialise_,
    inverted_residual,
    make_divisible,
    plan_block,
    removable_blocks,
)
from fertool.models.registry import register

# Table 1 of the paper: expansion, kernel, stride of the first block, channels, blocks.
_STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
_LAST = f"features.{len(_STAGES) + 1}"


class EfficientNet(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_stride: int,
        early_stride: int,
        width_mult: float,
        dropout: float,
        stochastic_depth: float,
        activation: str,
    ) -> None:
        super().__init__()
        check_args(
            strides={"stem_stride": stem_stride, "early_stride": early_stride},
            width_mult=width_mult,
            probabilities={"dropout": dropout, "stochastic_depth": stochastic_depth},
        )
        act = find_activation(activation)
        stages, default = _plan(early_stride, width_mult)
        self.blocks = removable_blocks(block for stage in stages for block in stage)
        self.widths = check_widths(widths, default, self.blocks)
        self.features = nn.Sequential(
            ConvNormAct(in_channels, self.widths["features.0"], 3, stem_stride, act=act),
            *self._stages(stages, stochastic_depth, act),
            ConvNormAct(self.widths[stages[-1][-1].out], self.widths[_LAST], act=act),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.widths[_LAST], num_classes))
        initialise_(self, _spread_)

    def _stages(self, stages: list[list[BlockPlan]], stochastic_depth: float, act: Factory) -> list[nn.Sequential]:
        """The later a block, the more often its branch is dropped: linearly from 0."""
        total = sum(len(stage) for stage in stages)
        result, done = [], 0
        for stage in stages:
            blocks = [
                inverted_residual(
                    block,
                    self.widths,
                    norm=nn.BatchNorm2d,
                    act=act,
                    squeeze=partial(SqueezeExcitation, act=act),
                    drop_branch=stochastic_depth * index / total,
                )
                for index, block in enumerate(stage, start=done)
            ]
            result.append(nn.Sequential(*blocks))
            done += len(stage)
        return result

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def _plan(early_stride: int, width_mult: float) -> tuple[list[list[BlockPlan]], dict[str, int]]:
    """Return the blocks by stage and the default widths."""
    stream = "features.0"
    widths = {stream: make_divisible(32 * width_mult)}
    early = first_strided(stage[2] for stage in _STAGES)
    stages = []
    for stage, (expansion, kernel, first_stride, channels, depth) in enumerate(_STAGES):
        blocks = []
        for index in range(depth):
            source = widths[stream]
            block = plan_block(
                widths,
                f"features.{stage + 1}.{index}",
                stream,
                hidden=make_divisible(source * expansion),
                out=make_divisible(channels * width_mult),
                squeeze=max(1, source // 4),
                kernel=kernel,
                stride=1 if index else early_stride if stage == early else first_stride,
            )
            blocks.append(block)
            stream = block.out
        stages.append(blocks)
    widths[_LAST] = 4 * widths[stream]
    return stages, widths


def _spread_(layer: nn.Linear) -> None:
    reach = 1 / math.sqrt(layer.out_features)
    nn.init.uniform_(layer.weight, -reach, reach)


@register(early_stride=1)
def efficientnet_b0(
    widths: Mapping[str, int] | None = None,
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
    """EfficientNet-B0 (Tan and Le 2019, table 1); `early_stride` is that of the 24-channel stage."""
    return EfficientNet(
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        stochastic_depth=stochastic_depth,
        activation=activation,
    )
