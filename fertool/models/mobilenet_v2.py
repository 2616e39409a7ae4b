"""MobileNetV2: inverted residuals with linear bottlenecks (Sandler et al. 2018, arXiv 1801.04381)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.models.layers import ConvNormAct, check_args, check_widths, first_strided, initialise_, make_divisible
from fertool.models.registry import register

# Table 2 of the paper: expansion, channels, blocks, stride of the first block.
_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


@dataclass(frozen=True)
class _BlockPlan:
    """One block, its channel counts given as width keys; equal keys mean tied channels."""

    source: str
    hidden: str
    out: str
    stride: int


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project without activation, and add the input where the shapes agree."""

    def __init__(self, plan: _BlockPlan, widths: Mapping[str, int]) -> None:
        super().__init__()
        source, hidden, out = widths[plan.source], widths[plan.hidden], widths[plan.out]
        expand = [ConvNormAct(source, hidden, act=nn.ReLU6)] if plan.hidden != plan.source else []
        self.conv = nn.Sequential(
            *expand,
            ConvNormAct(hidden, hidden, 3, plan.stride, groups=hidden, act=nn.ReLU6),
            nn.Conv2d(hidden, out, 1, bias=False),
            nn.BatchNorm2d(out),
        )
        self.has_shortcut = plan.out == plan.source

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        result: Tensor = self.conv(x)
        return x + result if self.has_shortcut else result


class MobileNetV2(nn.Module):
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
    ) -> None:
        super().__init__()
        check_args(
            strides={"stem_stride": stem_stride, "early_stride": early_stride},
            width_mult=width_mult,
            probabilities={"dropout": dropout},
        )
        blocks, default = _plan(early_stride, width_mult)
        self.blocks = {
            block.hidden.removesuffix(".conv.0"): (block.hidden,)
            for block in blocks
            if block.out == block.source != block.hidden
        }
        self.widths = check_widths(widths, default, self.blocks)
        last = f"features.{len(blocks) + 1}"
        self.features = nn.Sequential(
            ConvNormAct(in_channels, self.widths["features.0"], 3, stem_stride, act=nn.ReLU6),
            *(InvertedResidual(block, self.widths) if self.widths[block.hidden] else nn.Identity() for block in blocks),
            ConvNormAct(self.widths[blocks[-1].out], self.widths[last], act=nn.ReLU6),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(dropout), nn.Linear(self.widths[last], num_classes))
        initialise_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))
        return logits


def _plan(early_stride: int, width_mult: float) -> tuple[list[_BlockPlan], dict[str, int]]:
    """Return the blocks and the default widths."""
    stream = "features.0"
    widths = {stream: make_divisible(32 * width_mult)}
    blocks: list[_BlockPlan] = []
    early = first_strided(stage[3] for stage in _STAGES)
    for stage, (expansion, channels, depth, first_stride) in enumerate(_STAGES):
        out = make_divisible(channels * width_mult)
        for index in range(depth):
            path = f"features.{len(blocks) + 1}.conv"
            stride = 1 if index else early_stride if stage == early else first_stride
            shortcut = stride == 1 and out == widths[stream]
            block = _BlockPlan(
                source=stream,
                hidden=f"{path}.0" if expansion > 1 else stream,
                out=stream if shortcut else f"{path}.{2 if expansion > 1 else 1}",
                stride=stride,
            )
            widths.setdefault(block.hidden, widths[stream] * expansion)
            widths.setdefault(block.out, out)
            blocks.append(block)
            stream = block.out
    widths[f"features.{len(blocks) + 1}"] = make_divisible(1280 * max(1.0, width_mult))
    return blocks, widths


@register(stem_stride=1)
def mobilenet_v2(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    early_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.2,
) -> MobileNetV2:
    """MobileNetV2 (Sandler et al. 2018, table 2); `early_stride` is that of the 24-channel stage."""
    return MobileNetV2(
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        early_stride=early_stride,
        width_mult=width_mult,
        dropout=dropout,
    )
