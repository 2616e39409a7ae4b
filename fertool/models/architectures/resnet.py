"""ResNet (He et al. 2016, arXiv 1512.03385).

In the variant with the stride of a bottleneck in its 3 x 3 convolution, as torchvision has it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool.models.architecture import small_input
from fertool.models.arguments import check_args
from fertool.models.blocks import ConvNormAct, initialize_convolutions_, make_divisible
from fertool.registry import ARCHITECTURES


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    expansion = 1

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut_of(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        shortcut = self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return result


class Bottleneck(nn.Module):
    """Reduce, filter 3 x 3, expand, and a shortcut."""

    expansion = 4

    def __init__(self, inputs: int, inner: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = shortcut_of(inputs, outputs, stride)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        shortcut = self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        result: Tensor = self.relu(self.bn3(self.conv3(y)) + shortcut)
        return result


Block = type[BasicBlock] | type[Bottleneck]


def shortcut_of(inputs: int, outputs: int, stride: int) -> nn.Module:
    """Return the identity, or a 1 x 1 convolution where the shape changes."""
    if stride == 1 and inputs == outputs:
        return nn.Identity()
    return ConvNormAct(inputs, outputs, stride=stride)


def make_stage(
    block: Block, depth: int, inputs: int, inner: int, outputs: int, stride: int
) -> nn.Sequential:
    """Return `depth` blocks, the first of them with the stride."""
    blocks = [block(inputs, inner, outputs, stride)]
    for _ in range(depth - 1):
        blocks.append(block(outputs, inner, outputs))
    return nn.Sequential(*blocks)


def make_stem(
    in_channels: int, channels: int, kernel: int, stride: int, pool: bool
) -> tuple[nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Module]:
    """Return the layers before the first stage; the last one is an identity without `pool`."""
    convolution = nn.Conv2d(in_channels, channels, kernel, stride, padding=kernel // 2, bias=False)
    last = nn.MaxPool2d(3, 2, 1) if pool else nn.Identity()
    return convolution, nn.BatchNorm2d(channels), nn.ReLU(), last


class ResNet(nn.Module):
    """A ResNet of any depth; [N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        block: Block,
        depths: tuple[int, int, int, int],
        num_classes: int,
        in_channels: int,
        stem_kernel: int,
        stem_stride: int,
        stem_pool: bool,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(
            stem_stride=stem_stride, width_mult=width_mult, dropout=dropout, stem_kernel=stem_kernel
        )
        # Table 1 of the paper. Blocks are made of their inner channels, of which a bottleneck puts
        # out four times as many.
        inner = [make_divisible(planes * width_mult) for planes in (64, 128, 256, 512)]
        outputs = [count * block.expansion for count in inner]
        self.conv1, self.bn1, self.relu, self.maxpool = make_stem(
            in_channels, inner[0], stem_kernel, stem_stride, stem_pool
        )
        self.layer1 = make_stage(block, depths[0], inner[0], inner[0], outputs[0], stride=1)
        self.layer2 = make_stage(block, depths[1], outputs[0], inner[1], outputs[1], stride=2)
        self.layer3 = make_stage(block, depths[2], outputs[1], inner[2], outputs[2], stride=2)
        self.layer4 = make_stage(block, depths[3], outputs[2], inner[3], outputs[3], stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(outputs[3], num_classes)
        initialize_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


@ARCHITECTURES.register("resnet18")
@small_input(stem_kernel=3, stem_stride=1)
def resnet18(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_kernel: int = 7,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ResNet:
    """ResNet-18 (He et al. 2016, table 1).

    `stem_kernel=3 stem_stride=1 stem_pool=false` is the form for CIFAR's 32 pixels.
    """
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        num_classes=num_classes,
        in_channels=in_channels,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )


@ARCHITECTURES.register("resnet50")
@small_input(stem_kernel=3, stem_stride=1)
def resnet50(
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_kernel: int = 7,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ResNet:
    """ResNet-50 (He et al. 2016, table 1).

    `stem_kernel=3 stem_stride=1 stem_pool=false` is the form for CIFAR's 32 pixels.
    """
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        num_classes=num_classes,
        in_channels=in_channels,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )
