"""ResNet (He et al. 2016, arXiv 1512.03385), in the variant with the stride in a bottleneck's 3 x 3 convolution."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool.errors import UsageError
from fertool.models.layers import Blocks, check_args, check_widths, initialise_convolutions_, make_divisible
from fertool.models.registry import register

_PLANES = (64, 128, 256, 512)


class BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    inner = ("conv1",)
    expansion = 1

    def __init__(self, source: int, inner: list[int], out: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(source, inner[0], 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner[0])
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner[0], out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        result: Tensor = self.relu(self.bn2(self.conv2(y)) + shortcut)
        return result


class Bottleneck(nn.Module):
    """Reduce, filter 3 x 3, expand, and a shortcut."""

    inner = ("conv1", "conv2")
    expansion = 4

    def __init__(self, source: int, inner: list[int], out: int, stride: int, downsample: nn.Module | None) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(source, inner[0], 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner[0])
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(inner[0], inner[1], 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner[1])
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(inner[1], out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.downsample = downsample
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        shortcut = x if self.downsample is None else self.downsample(x)
        y = self.relu1(self.bn1(self.conv1(x)))
        y = self.relu2(self.bn2(self.conv2(y)))
        result: Tensor = self.relu(self.bn3(self.conv3(y)) + shortcut)
        return result


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """A ResNet of any depth; [N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        block: Block,
        depths: tuple[int, ...],
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_kernel: int,
        stem_stride: int,
        stem_pool: bool,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(strides={"stem_stride": stem_stride}, width_mult=width_mult, probabilities={"dropout": dropout})
        check_stem_kernel(stem_kernel)
        self.blocks = removable_blocks(block, depths)
        self.widths = check_widths(widths, default_widths(block, depths, width_mult), self.blocks)
        stem = self.widths["conv1"]
        self.conv1 = nn.Conv2d(in_channels, stem, stem_kernel, stem_stride, stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else None
        self.layer1 = build_stage(self.widths, block, 1, depths[0])
        self.layer2 = build_stage(self.widths, block, 2, depths[1])
        self.layer3 = build_stage(self.widths, block, 3, depths[2])
        self.layer4 = build_stage(self.widths, block, 4, depths[3])
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.widths["layer4"], num_classes)
        initialise_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def build_stage(widths: Mapping[str, int], block: Block, stage: int, depth: int) -> nn.Sequential:
    """Return stage 1 to 4 with `depth` blocks, the first of them with stride 2 unless the stage is the first."""
    source, out = widths[_stream(block, stage - 1)], widths[_stream(block, stage)]
    blocks = []
    for index in range(depth):
        inner = [widths[f"layer{stage}.{index}.{conv}"] for conv in block.inner]
        stride = 2 if index == 0 and stage > 1 else 1
        downsample = None
        if index == 0 and _stream(block, stage) != _stream(block, stage - 1):
            downsample = nn.Sequential(nn.Conv2d(source, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        # What comes in has passed a ReLU, so that nothing is left to do for a block without width.
        blocks.append(
            block(source if index == 0 else out, inner, out, stride, downsample) if any(inner) else nn.Identity()
        )
    return nn.Sequential(*blocks)


def removable_blocks(block: Block, depths: tuple[int, ...]) -> Blocks:
    """Return the blocks whose shortcut is the input itself."""
    return {
        f"layer{stage}.{index}": tuple(f"layer{stage}.{index}.{conv}" for conv in block.inner)
        for stage, depth in enumerate(depths, start=1)
        for index in range(depth)
        if index or _stream(block, stage) == _stream(block, stage - 1)
    }


def default_widths(block: Block, depths: tuple[int, ...], width_mult: float) -> dict[str, int]:
    """Return the widths by key of the stem and of as many stages as there are `depths`."""
    planes = [make_divisible(count * width_mult) for count in _PLANES[: len(depths)]]
    widths = {"conv1": planes[0]}
    for stage, (count, depth) in enumerate(zip(planes, depths, strict=True), start=1):
        widths[_stream(block, stage)] = count * block.expansion
        widths |= {f"layer{stage}.{index}.{conv}": count for index in range(depth) for conv in block.inner}
    return widths


def check_stem_kernel(kernel: int) -> None:
    """Raise UsageError for a stem kernel without a centre."""
    if kernel < 1 or kernel % 2 == 0:
        raise UsageError(f"--arch-arg stem_kernel={kernel}: not an odd number", "stem_kernel=3 or 7")


def _stream(block: Block, stage: int) -> str:
    """The width key of a stage's residual stream; a first stage without downsampling adds onto the stem's channels."""
    return "conv1" if stage == 0 or (stage == 1 and block.expansion == 1) else f"layer{stage}"


@register(stem_kernel=3, stem_stride=1)
def resnet18(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_kernel: int = 7,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ResNet:
    """ResNet-18 (He et al. 2016, table 1); `stem_kernel=3 stem_stride=1 stem_pool=false` is the CIFAR form."""
    return ResNet(
        BasicBlock,
        (2, 2, 2, 2),
        widths,
        num_classes,
        in_channels,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )


@register(stem_kernel=3, stem_stride=1)
def resnet50(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_kernel: int = 7,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ResNet:
    """ResNet-50 (He et al. 2016, table 1); `stem_kernel=3 stem_stride=1 stem_pool=false` is the CIFAR form."""
    return ResNet(
        Bottleneck,
        (3, 4, 6, 3),
        widths,
        num_classes,
        in_channels,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )
