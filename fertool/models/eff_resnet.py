"""EFF-ResNet18, the teacher of T-SNet: the first half of ResNet-18 and fine-grained feature extraction behind it.

The source (section III) names stem, two residual stages, two FFE modules and the classifier, and gives 28 x 28 x 128
for the map between; it is silent on what follows, so the FFE modules keep that map's 128 channels and size, and a
global average pool precedes the classifier. The source reports 11.8 M parameters. These parts have 1.13 M; its figure
is about that of a whole ResNet-18 (11.2 M) with FFE modules on top, which its text and its figure 3 do not show.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from fertool.errors import UsageError
from fertool.models.layers import ConvNormAct, check_args, check_widths, initialise_convolutions_
from fertool.models.registry import register
from fertool.models.resnet import BasicBlock, build_stage, check_stem_kernel, default_widths, removable_blocks

_DEPTHS = (2, 2)
_SUBSET = "ffe1.left.0"
"""The key of one subset's channels: the sums in the FFE modules tie all subsets, and so the stream made of them."""


class FineGrainedExtraction(nn.Module):
    """The FFE module: a convolution, then `subsets` groups of channels in two chains of 3 x 3 convolutions.

    left: Y_i = P_i(X_i + Y_(i-1)) from the first subset to the last; right: Y_i = P_i(X_i + Y_(i+1)) from the last to
    the first, as the source's text has it (Y_i sees X_j, j >= i), where its equation 2 repeats the left chain. Y_i is
    their sum (equation 3). BN and ReLU follow every convolution; the module's input is added to its output, and as
    neither is negative no ReLU stands behind. The design is that of MA-Net's multi-scale block (Zhao et al. 2021).
    """

    def __init__(self, subset: int, subsets: int) -> None:
        super().__init__()
        self.subset = subset
        self.conv = ConvNormAct(subset * subsets, subset * subsets, 3, act=nn.ReLU)
        self.left = nn.ModuleList(ConvNormAct(subset, subset, 3, act=nn.ReLU) for _ in range(subsets))
        self.right = nn.ModuleList(ConvNormAct(subset, subset, 3, act=nn.ReLU) for _ in range(subsets))

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        split = self.conv(x).split(self.subset, dim=1)
        parts = [split[index] for index in range(len(self.left))]
        left = _chain(self.left, parts)
        right = reversed(_chain(reversed(self.right), parts[::-1]))
        return torch.cat([a + b for a, b in zip(left, right, strict=True)], dim=1) + x


def _chain(layers: Iterable[nn.Module], parts: list[Tensor]) -> list[Tensor]:
    """Return what each layer makes of its part and of the result before."""
    results: list[Tensor] = []
    for layer, part in zip(layers, parts, strict=True):
        results.append(layer(part + results[-1] if results else part))
    return results


class EffResNet(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_kernel: int,
        stem_stride: int,
        stem_pool: bool,
        subsets: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(strides={"stem_stride": stem_stride}, width_mult=width_mult, probabilities={"dropout": dropout})
        check_stem_kernel(stem_kernel)
        if subsets < 1:
            raise UsageError(f"--arch-arg subsets={subsets}: not above 0", "for example subsets=4")
        self.blocks = removable_blocks(BasicBlock, _DEPTHS)
        self.widths = check_widths(widths, _default_widths(subsets, width_mult), self.blocks)
        stem, stream = self.widths["conv1"], subsets * self.widths[_SUBSET]
        channels = {**self.widths, "layer2": stream}
        self.conv1 = nn.Conv2d(in_channels, stem, stem_kernel, stem_stride, stem_kernel // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.relu = nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else None
        self.layer1 = build_stage(channels, BasicBlock, 1, _DEPTHS[0])
        self.layer2 = build_stage(channels, BasicBlock, 2, _DEPTHS[1])
        self.ffe1 = FineGrainedExtraction(self.widths[_SUBSET], subsets)
        self.ffe2 = FineGrainedExtraction(self.widths[_SUBSET], subsets)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(stream, num_classes)
        initialise_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.relu(self.bn1(self.conv1(x)))
        if self.maxpool is not None:
            x = self.maxpool(x)
        x = self.ffe2(self.ffe1(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _default_widths(subsets: int, width_mult: float) -> dict[str, int]:
    widths = default_widths(BasicBlock, _DEPTHS, width_mult)
    stream = widths.pop("layer2")
    return {**widths, _SUBSET: max(1, stream // subsets)}


@register(stem_kernel=3, stem_stride=1)
def eff_resnet18(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_kernel: int = 7,
    stem_stride: int = 2,
    stem_pool: bool = True,
    subsets: int = 4,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> EffResNet:
    """EFF-ResNet18 (the teacher of T-SNet, section III); `subsets` is n, into how many the FFE modules split."""
    return EffResNet(
        widths,
        num_classes,
        in_channels,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        subsets=subsets,
        width_mult=width_mult,
        dropout=dropout,
    )
