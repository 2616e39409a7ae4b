"""A small ResNet for images as small as FER2013's, made for integer CPUs; ours.

Networks made for 224 pixels spend their depth on maps of 2 x 2 when their input has 48. Here three
stages keep 24 x 24, 12 x 12 and 6 x 6: each begins with a strided 3 x 3 convolution, which changes
the channels (so no shortcut needs one of its own), and continues with plain residual blocks (He et
al. 2016, figure 2). Dense 3 x 3 convolutions with ReLU are what integer kernels are fastest at,
relative to float; every shortcut adds two ReLU outputs, whose ranges are similar.

`benchmarks/native.py` compares the plan with bottlenecks, fused and depthwise inverted residuals.
0.57 M parameters with 7 classes, 49 M multiply-accumulates at 48 pixels; `width_mult` scales it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.models.architectures.resnet import BasicBlock
from fertool.models.arguments import check_args
from fertool.models.blocks import ConvNormAct, initialize_convolutions_, make_divisible
from fertool.registry import ARCHITECTURES


class NanoResNet(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stem_stride: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(stem_stride=stem_stride, width_mult=width_mult, dropout=dropout)
        first = make_divisible(32 * width_mult)
        second = make_divisible(64 * width_mult)
        third = make_divisible(96 * width_mult)
        self.layer1 = _stage(in_channels, first, stem_stride, blocks=1)
        self.layer2 = _stage(first, second, 2, blocks=2)
        self.layer3 = _stage(second, third, 2, blocks=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(third, num_classes)
        initialize_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _stage(inputs: int, outputs: int, stride: int, blocks: int) -> nn.Sequential:
    """Return a convolution with the stride and residual blocks behind it."""
    layers: list[nn.Module] = [ConvNormAct(inputs, outputs, 3, stride, act=nn.ReLU)]
    for _ in range(blocks):
        layers.append(BasicBlock(outputs, outputs, outputs))
    return nn.Sequential(*layers)


@ARCHITECTURES.register("nano_resnet")
def nano_resnet(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> NanoResNet:
    """A ResNet of 13 layers for 48 x 48 pixels and INT8; at most 0.6 M parameters."""
    return NanoResNet(num_classes, in_channels, stem_stride, width_mult, dropout)
