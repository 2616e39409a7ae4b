"""EFF-ResNet18, the teacher of T-SNet: half a ResNet-18, then fine-grained feature extraction.

The source (section III) names stem, two residual stages, two FFE modules and the classifier, and
gives 28 x 28 x 128 for the map between; it does not say what follows, so the FFE modules keep that
map's 128 channels and size, and a global average pool precedes the classifier. The source reports
11.8 M parameters. These parts have 1.13 M; its figure is about that of a whole ResNet-18 (11.2 M)
with FFE modules on top, which its text and its figure 3 do not show.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from fertool.models.architecture import small_input
from fertool.models.architectures.resnet import BasicBlock, make_stage, make_stem
from fertool.models.arguments import check_args
from fertool.models.blocks import ConvNormAct, initialize_convolutions_, make_divisible
from fertool.registry import ARCHITECTURES


class FineGrainedExtraction(nn.Module):
    """The FFE module: a convolution, then two chains of 3 x 3 convolutions over channel subsets.

    left: Y_i = P_i(X_i + Y_(i-1)) from the first subset to the last; right:
    Y_i = P_i(X_i + Y_(i+1)) from the last to the first, as the source's text has it (Y_i depends on
    X_j, j >= i), where its equation 2 repeats the left chain. Y_i is their sum (equation 3). BN and
    ReLU follow every convolution. The design is that of MA-Net's multi-scale block (Zhao et al.
    2021).
    """

    def __init__(self, subset: int, subsets: int) -> None:
        super().__init__()
        self.conv = ConvNormAct(subset * subsets, subset * subsets, 3, act=nn.ReLU)
        self.left = _branch(subset, subsets)
        self.right = _branch(subset, subsets)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the same shape."""
        parts = self.conv(x).chunk(len(self.left), dim=1)
        left = _chain(self.left, parts)
        # From the last subset to the first; the results are put back into the subsets' order.
        right = reversed(_chain(reversed(self.right), reversed(parts)))
        sums = [a + b for a, b in zip(left, right, strict=True)]
        # No ReLU behind: neither the sums nor the input are negative.
        return torch.cat(sums, dim=1) + x


def _branch(subset: int, subsets: int) -> nn.ModuleList:
    return nn.ModuleList(ConvNormAct(subset, subset, 3, act=nn.ReLU) for _ in range(subsets))


def _chain(layers: Iterable[nn.Module], parts: Iterable[Tensor]) -> list[Tensor]:
    """Return the result of each layer on its part plus the result before."""
    results: list[Tensor] = []
    for layer, part in zip(layers, parts, strict=True):
        if results:
            part = part + results[-1]
        results.append(layer(part))
    return results


class EffResNet(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        num_classes: int,
        in_channels: int,
        stem_kernel: int,
        stem_stride: int,
        stem_pool: bool,
        subsets: int,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(
            stem_stride=stem_stride,
            width_mult=width_mult,
            dropout=dropout,
            stem_kernel=stem_kernel,
            subsets=subsets,
        )
        first = make_divisible(64 * width_mult)
        second = make_divisible(128 * width_mult)
        # The subsets have equal channels, so that the second stage may get a few fewer.
        subset = max(1, second // subsets)
        outputs = subset * subsets
        # Stem and stages have ResNet-18's names, so that its checkpoints load.
        self.conv1, self.bn1, self.relu, self.maxpool = make_stem(
            in_channels, first, stem_kernel, stem_stride, stem_pool
        )
        self.layer1 = make_stage(BasicBlock, 2, first, first, first, stride=1)
        self.layer2 = make_stage(BasicBlock, 2, first, second, outputs, stride=2)
        self.ffe1 = FineGrainedExtraction(subset, subsets)
        self.ffe2 = FineGrainedExtraction(subset, subsets)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(outputs, num_classes)
        initialize_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.ffe2(self.ffe1(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


@ARCHITECTURES.register("eff_resnet18")
@small_input(stem_kernel=3, stem_stride=1)
def eff_resnet18(
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
    """EFF-ResNet18 (the teacher of T-SNet, section III); `subsets` is n of the FFE modules."""
    return EffResNet(
        num_classes=num_classes,
        in_channels=in_channels,
        stem_kernel=stem_kernel,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        subsets=subsets,
        width_mult=width_mult,
        dropout=dropout,
    )
