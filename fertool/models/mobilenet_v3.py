"""MobileNetV3, Large and Small (Howard et al. 2019, arXiv 1905.02244)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Row:
    """One line of the paper's tables 1 and 2: a block."""

    kernel: int
    hidden: int
    out: int
    squeeze: bool
    hardswish: bool
    stride: int


@dataclass(frozen=True)
class TrunkPlan:
    """The convolutional part: its blocks, and the default widths by key."""

    blocks: tuple[BlockPlan, ...]
    hardswish: tuple[bool, ...]
    last: str
    widths: dict[str, int]


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

_STEM_CHANNELS = 16
_norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
_squeeze = partial(SqueezeExcitation, scale_act=nn.Hardsigmoid)


def plan_trunk(rows: tuple[Row, ...], *, early_stride: int, width_mult: float) -> TrunkPlan:
    """Lay out stem, blocks and last convolution; the first strided block gets `early_stride`."""
    stream = "features.0"
    widths = {stream: make_divisible(_STEM_CHANNELS * width_mult)}
    blocks = []
    early = first_strided(row.stride for row in rows)
    for index, row in enumerate(rows):
        hidden = make_divisible(row.hidden * width_mult)
        block = plan_block(
            widths,
            f"features.{index + 1}",
            stream,
            hidden=hidden,
            out=make_divisible(row.out * width_mult),
            squeeze=make_divisible(hidden // 4) if row.squeeze else None,
            kernel=row.kernel,
            stride=early_stride if index == early else row.stride,
        )
        blocks.append(block)
        stream = block.out
    last = f"features.{len(rows) + 1}"
    widths[last] = 6 * widths[stream]
    return TrunkPlan(tuple(blocks), tuple(row.hardswish for row in rows), last, widths)


def build_features(
    plan: TrunkPlan, widths: Mapping[str, int], in_channels: int, stem_stride: int, act: Factory
) -> nn.Sequential:
    """Return stem, blocks and last convolution: [N, in_channels, S, S] to [N, widths[plan.last], s, s].

    `act` stands where the paper has h-swish.
    """
    blocks = [
        inverted_residual(block, widths, norm=_norm, act=act if hardswish else nn.ReLU, squeeze=_squeeze)
        for block, hardswish in zip(plan.blocks, plan.hardswish, strict=True)
    ]
    return nn.Sequential(
        ConvNormAct(in_channels, widths["features.0"], 3, stem_stride, norm=_norm, act=act),
        *blocks,
        ConvNormAct(widths[plan.blocks[-1].out], widths[plan.last], norm=_norm, act=act),
    )


class MobileNetV3(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        rows: tuple[Row, ...],
        hidden: int,
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_stride: int,
        early_stride: int,
        width_mult: float,
        dropout: float,
        activation: str,
    ) -> None:
        super().__init__()
        check_args(
            strides={"stem_stride": stem_stride, "early_stride": early_stride},
            width_mult=width_mult,
            probabilities={"dropout": dropout},
        )
        act = find_activation(activation)
        plan = plan_trunk(rows, early_stride=early_stride, width_mult=width_mult)
        default = {**plan.widths, "classifier.0": make_divisible(hidden * width_mult)}
        self.blocks = removable_blocks(plan.blocks)
        self.widths = check_widths(widths, default, self.blocks)
        self.features = build_features(plan, self.widths, in_channels, stem_stride, act)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(self.widths[plan.last], self.widths["classifier.0"]),
            act(),
            nn.Dropout(dropout),
            nn.Linear(self.widths["classifier.0"], num_classes),
        )
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


@register(early_stride=1)
def mobilenet_v3_large(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    activation: str = "hardswish",
) -> MobileNetV3:
    """MobileNetV3-Large (Howard et al. 2019, table 1); `early_stride` is that of the first 24-channel block."""
    return MobileNetV3(
        LARGE,
        1280,
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        activation=activation,
    )


@register(early_stride=1)
def mobilenet_v3_small(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
    activation: str = "hardswish",
) -> MobileNetV3:
    """MobileNetV3-Small (Howard et al. 2019, table 2); `early_stride` is that of the first block, of 16 channels."""
    return MobileNetV3(
        SMALL,
        1024,
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        activation=activation,
    )
