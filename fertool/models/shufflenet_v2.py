"""ShuffleNetV2 (Ma et al. 2018, arXiv 1807.11164)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fertool.models.layers import check_args, check_widths, make_divisible
from fertool.models.registry import register

_DEPTHS = {"stage2": 4, "stage3": 8, "stage4": 4}


class InvertedResidual(nn.Module):
    """Two branches of `half` channels each, concatenated and shuffled (figure 3, c and d, of the paper).

    With stride 1 the first branch is half of the input as it is; with stride 2 both branches read the whole input.
    """

    def __init__(self, source: int, inner: int, half: int, stride: int) -> None:
        super().__init__()
        self.branch_channels = half
        self.splits = stride == 1
        self.branch1 = nn.Sequential()
        if not self.splits:
            self.branch1 = nn.Sequential(
                nn.Conv2d(source, source, 3, stride, 1, groups=source, bias=False),
                nn.BatchNorm2d(source),
                nn.Conv2d(source, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(half if self.splits else source, inner, 1, bias=False),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            nn.Conv2d(inner, inner, 3, stride, 1, groups=inner, bias=False),
            nn.BatchNorm2d(inner),
            nn.Conv2d(inner, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, 2 * half, H, W]; channels of the two branches alternate."""
        if self.splits:
            kept, rest = x.chunk(2, dim=1)
        else:
            kept, rest = self.branch1(x), x
        both = torch.cat((kept, self.branch2(rest)), dim=1)
        height, width = both.size(2), both.size(3)
        # Channel counts as plain integers and -1 for the batch: what a traced graph keeps free is the batch alone.
        pairs = both.reshape(-1, 2, self.branch_channels, height, width).transpose(1, 2)
        return pairs.reshape(-1, 2 * self.branch_channels, height, width)


class ShuffleNetV2(nn.Module):
    """[N, in_channels, S, S] to logits [N, num_classes]."""

    def __init__(
        self,
        channels: tuple[int, ...],
        widths: Mapping[str, int] | None,
        num_classes: int,
        in_channels: int,
        *,
        stem_stride: int,
        stem_pool: bool,
        width_mult: float,
        dropout: float,
    ) -> None:
        super().__init__()
        check_args(strides={"stem_stride": stem_stride}, width_mult=width_mult, probabilities={"dropout": dropout})
        self.widths = check_widths(widths, _default_widths(channels, width_mult))
        stem, last = self.widths["conv1"], self.widths["conv5"]
        self.conv1 = nn.Sequential(
            nn.Conv2d(in_channels, stem, 3, stem_stride, 1, bias=False), nn.BatchNorm2d(stem), nn.ReLU()
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1) if stem_pool else None
        self.stage2 = self._stage("stage2", stem)
        self.stage3 = self._stage("stage3", 2 * self.widths["stage2"])
        self.stage4 = self._stage("stage4", 2 * self.widths["stage3"])
        self.conv5 = nn.Sequential(
            nn.Conv2d(2 * self.widths["stage4"], last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU()
        )
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(last, num_classes)

    def _stage(self, name: str, source: int) -> nn.Sequential:
        half = self.widths[name]
        inner = [self.widths[f"{name}.{index}.branch2.0"] for index in range(_DEPTHS[name])]
        return nn.Sequential(
            InvertedResidual(source, inner[0], half, 2),
            *(InvertedResidual(2 * half, count, half, 1) for count in inner[1:]),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        x = self.conv1(x)
        if self.maxpool is not None:
            x = self.maxpool(x)
        x = self.conv5(self.stage4(self.stage3(self.stage2(x))))
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))
        return logits


def _default_widths(channels: tuple[int, ...], width_mult: float) -> dict[str, int]:
    """The widths by key; a stage's own key counts half of its channels, which is what each branch makes."""
    stem, *stages, last = (make_divisible(count * width_mult, 2) for count in channels)
    widths = {"conv1": stem, "conv5": last}
    for (name, depth), count in zip(_DEPTHS.items(), stages, strict=True):
        widths[name] = count // 2
        widths |= {f"{name}.{index}.branch2.0": count // 2 for index in range(depth)}
    return widths


@register(stem_stride=1)
def shufflenet_v2_x0_5(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ShuffleNetV2:
    """ShuffleNetV2 0.5x (Ma et al. 2018, table 5); `stem_pool` is the max pool with stride 2 after the stem."""
    return ShuffleNetV2(
        (24, 48, 96, 192, 1024),
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )


@register(stem_stride=1)
def shufflenet_v2_x1_0(
    widths: Mapping[str, int] | None = None,
    *,
    num_classes: int = 7,
    in_channels: int = 1,
    stem_stride: int = 2,
    stem_pool: bool = True,
    width_mult: float = 1.0,
    dropout: float = 0.0,
) -> ShuffleNetV2:
    """ShuffleNetV2 1x (Ma et al. 2018, table 5); `stem_pool` is the max pool with stride 2 after the stem."""
    return ShuffleNetV2(
        (24, 116, 232, 464, 1024),
        widths,
        num_classes,
        in_channels,
        stem_stride=stem_stride,
        stem_pool=stem_pool,
        width_mult=width_mult,
        dropout=dropout,
    )
