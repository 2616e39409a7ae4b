"""Blocks that several families share, with the parameter names of the reference implementation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Factory = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm and, unless `act` is None, an activation.

    Odd kernels have "same" padding.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        *,
        norm: Norm = nn.BatchNorm2d,
        act: Factory | None = None,
    ) -> None:
        conv = nn.Conv2d(
            inputs,
            outputs,
            kernel_size=kernel,
            stride=stride,
            padding=kernel // 2,
            groups=groups,
            bias=False,
        )
        layers: list[nn.Module] = [conv, norm(outputs)]
        if act is not None:
            layers.append(act())
        super().__init__(*layers)


class SqueezeExcitation(nn.Module):
    """Channel attention: pool, squeeze, excite, scale.

    Hu et al. 2018, arXiv 1709.01507, figure 1.
    """

    def __init__(
        self,
        channels: int,
        squeezed: int,
        *,
        act: Factory = nn.ReLU,
        scale_act: Factory = nn.Sigmoid,
    ) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # 1 x 1 convolutions and not linear layers, as in the reference implementation's files.
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = act()
        self.scale_activation = scale_act()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map [N, C, H, W] with each channel scaled."""
        squeezed = self.activation(self.fc1(self.avgpool(x)))
        scaled: Tensor = self.scale_activation(self.fc2(squeezed)) * x
        return scaled


class EfficientChannelAttention(nn.Module):
    """Local channel attention (ECA): pool, mix each channel with its neighbors, scale.

    Wang et al. 2020, arXiv 1910.03151. One odd `kernel` slides along the channels; no weight
    belongs to a channel.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        # Two-dimensional over [N, 1, 1, C], as runtimes have integer kernels for these alone.
        self.conv = nn.Conv2d(1, 1, (1, kernel), padding=(0, kernel // 2), bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map [N, C, H, W] with each channel scaled."""
        pooled = self.avgpool(x)
        # Reshaped, not transposed: ONNX Runtime moves transposes on to the maps, where they cost
        # time.
        row = pooled.reshape(x.shape[0], 1, 1, x.shape[1])
        scale = self.sigmoid(self.conv(row).reshape(pooled.shape))
        scaled: Tensor = scale * x
        return scaled


def eca_kernel(channels: int) -> int:
    """Return the odd number nearest to log2(channels) / 2 + 1 / 2, the larger of two.

    ECA-Net, equation 12.
    """
    return 2 * int((math.log2(channels) + 1) / 4) + 1


class StochasticDepth(nn.Module):
    """Drop whole images of a residual branch with probability `p` while training.

    Huang et al. 2016, arXiv 1603.09382.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W]: each image 0 or divided by 1 - p; in eval mode the input itself."""
        if not self.training or self.p == 0:
            return x
        # Dropout of one value per image, which divides the others by 1 - p.
        kept = functional.dropout(torch.ones_like(x[:, :1, :1, :1]), self.p)
        return x * kept

    def extra_repr(self) -> str:
        """Show the probability in the module's printout."""
        return f"p={self.p}"


class InvertedResidual(nn.Module):
    """Expand, filter each channel, attend, project: the block of MobileNetV3 and EfficientNet.

    As in the reference implementation there is no expansion where `hidden` equals `inputs`, and a
    shortcut where neither stride nor channel count changes.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        kernel: int,
        stride: int,
        *,
        act: Factory,
        norm: Norm = nn.BatchNorm2d,
        attention: nn.Module | None = None,
        drop_branch: float = 0.0,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if hidden != inputs:
            layers.append(ConvNormAct(inputs, hidden, norm=norm, act=act))
        layers.append(
            ConvNormAct(hidden, hidden, kernel, stride, groups=hidden, norm=norm, act=act)
        )
        if attention is not None:
            layers.append(attention)
        layers.append(ConvNormAct(hidden, outputs, norm=norm))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = stride == 1 and inputs == outputs
        self.stochastic_depth = StochasticDepth(drop_branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        result: Tensor = self.block(x)
        if self.has_shortcut:
            result = self.stochastic_depth(result) + x
        return result


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a scaled channel count to a multiple of `divisor`, down by 10 % at most.

    MobileNet's rule.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    if rounded < 0.9 * value:
        rounded += divisor
    return rounded


def initialize_(module: nn.Module) -> None:
    """Draw the weights as the reference implementation does for mobile networks, in place.

    Those of linear layers have a standard deviation of 0.01.
    """
    initialize_convolutions_(module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)


def initialize_convolutions_(module: nn.Module) -> None:
    """Draw convolutions from a normal distribution with fan-out scaling, in place; biases are 0.

    He et al. 2015, arXiv 1502.01852, equation 14.
    """
    for layer in module.modules():
        # Without storage there is nothing to draw, and the draw would be most of the time that it
        # takes to open a file.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
