"""MicroExpNet, the MobileNetV3-Small student of Rejina (2026).

The name is used twice. This is the distilled network of 1.2 M parameters with a squeeze-and-excitation head for edge
devices, not the network of a tenth of that size which Cugu et al. published as MicroExpNet in 2017 (arXiv 1711.07011).

The source gives a reduction of 4 for the head's attention and 1.18 M parameters in total, 0.12 M of them for the
attention. Both cannot hold: with a reduction of 4 the attention takes 0.167 M and the network 1.243 M. The default
here is 6 (0.111 M and 1.187 M), which keeps the total; `se_reduction=4` is the other reading. The source names no
activation between the last two layers; as in MobileNetV3's own classifier it is h-swish.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool.errors import UsageError
from fertool.models.activations import find_activation
from fertool.models.layers import (
    SqueezeExcitation,
    check_args,
    check_widths,
    initialise_,
    make_divisible,
    removable_blocks,
)
from fertool.models.mobilenet_v3 import SMALL, build_features, plan_trunk
from fertool.models.registry import register


class MicroExpNet(nn.Module):
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
        se_reduction: int,
        activation: str,
    ) -> None:
        super().__init__()
        check_args(
            strides={"stem_stride": stem_stride, "early_stride": early_stride},
            width_mult=width_mult,
            probabilities={"dropout": dropout},
        )
        if se_reduction < 1:
            raise UsageError(f"--arch-arg se_reduction={se_reduction}: not above 0", "se_reduction=4 or 6")
        act = find_activation(activation)
        plan = plan_trunk(SMALL, early_stride=early_stride, width_mult=width_mult)
        head = {
            "se.fc1": max(1, plan.widths[plan.last] // se_reduction),
            "classifier.0": make_divisible(256 * width_mult),
        }
        self.blocks = removable_blocks(plan.blocks)
        self.widths = check_widths(widths, {**plan.widths, **head}, self.blocks)
        last, hidden = self.widths[plan.last], self.widths["classifier.0"]
        self.features = build_features(plan, self.widths, in_channels, stem_stride, act)
        self.se = SqueezeExcitation(last, self.widths["se.fc1"])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Linear(last, hidden), act(), nn.Dropout(dropout), nn.Linear(hidden, num_classes)
        )
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.se(self.features(x))), 1))
        return logits


@register(early_stride=1)
def micro_expnet(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.4,
    se_reduction: int = 6,
    activation: str = "hardswish",
) -> MicroExpNet:
    """MicroExpNet (Rejina 2026, section III); `early_stride` is that of the trunk's first block."""
    return MicroExpNet(
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
        se_reduction=se_reduction,
        activation=activation,
    )
