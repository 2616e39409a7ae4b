"""A small ResNet for images as small as FER2013's, made for integer CPUs; ours.

Networks made for 224 pixels spend their depth on maps of 2 x 2 when they see 48. Here three stages keep 24 x 24, 12 x
12 and 6 x 6: each begins with a strided 3 x 3 convolution, which changes the channels (so no shortcut needs one of its
own), and goes on with plain residual blocks (He et al. 2016, figure 2). Dense 3 x 3 convolutions with ReLU are what
integer kernels are fastest at, relative to float; every shortcut adds two ReLU outputs, whose ranges are alike.

`benchmarks/native.py` compares the plan with bottlenecks, fused and depthwise inverted residuals. 0.57 M parameters
with 7 classes, 49 M multiply-accumulates at 48 pixels; `width_mult` makes the family.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool.models.layers import ConvNormAct, check_args, check_widths, initialise_convolutions_, make_divisible
from fertool.models.registry import register
from fertool.models.resnet import BasicBlock

_STAGES = {"layer1": (32, 1), "layer2": (64, 2), "layer3": (96, 2)}
"""Channels and number of residual blocks."""


class NanoResNet(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(strides={"stem_stride": stem_stride}, width_mult=width_mult, probabilities={"dropout": dropout})
        self.blocks = {f"{name}.{index}": (f"{name}.{index}.conv1",) for name in _STAGES for index in _blocks(name)}
        self.widths = check_widths(widths, _default_widths(width_mult), self.blocks)
        self.layer1 = self._stage("layer1", in_channels, stem_stride)
        self.layer2 = self._stage("layer2", self.widths["layer1"], 2)
        self.layer3 = self._stage("layer3", self.widths["layer2"], 2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.widths["layer3"], num_classes)
        initialise_convolutions_(self)

    def _stage(self, name: str, source: int, stride: int) -> nn.Sequential:
        out = self.widths[name]
        inner = [self.widths[f"{name}.{index}.conv1"] for index in _blocks(name)]
        return nn.Sequential(
            ConvNormAct(source, out, 3, stride, act=nn.ReLU),
            *(BasicBlock(out, [count], out, 1, None) if count else nn.Identity() for count in inner),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _blocks(stage: str) -> range:
    """Return the positions of a stage's residual blocks, behind its strided convolution."""
    return range(1, 1 + _STAGES[stage][1])


def _default_widths(width_mult: float) -> dict[str, int]:
    widths: dict[str, int] = {}
    for stage, (channels, _) in _STAGES.items():
        count = make_divisible(channels * width_mult)
        widths |= {stage: count, **{f"{stage}.{index}.conv1": count for index in _blocks(stage)}}
    return widths


@register()
def nano_resnet(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> NanoResNet:
    """A ResNet of 13 layers for 48 x 48 pixels and INT8; at most 0.6 M parameters."""
    return NanoResNet(widths, num_classes, in_channels, stem_stride=stem_stride, width_mult=width_mult, dropout=dropout)
