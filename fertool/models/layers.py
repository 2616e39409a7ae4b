"""Layers that several families share, with the parameter names of the reference implementation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Factory = Callable[[], nn.Module]
Norm = Callable[[int], nn.Module]


class ConvNormAct(nn.Sequential):
    """Convolution without bias, batch norm and, unless `act` is None, an activation; "same" padding for odd kernels."""

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
        conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        super().__init__(conv, norm(outputs), *([act()] if act else []))


class SqueezeExcitation(nn.Module):
    """Channel attention: pool, squeeze, excite, scale (Hu et al. 2018, arXiv 1709.01507, figure 1)."""

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
        self.fc1 = nn.Conv2d(channels, squeezed, 1)
        self.fc2 = nn.Conv2d(squeezed, channels, 1)
        self.activation = act()
        self.scale_activation = scale_act()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map [N, C, H, W] with each channel scaled."""
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        scaled: Tensor = self.scale_activation(scale) * x
        return scaled


class EfficientChannelAttention(nn.Module):
    """Local channel attention: pool, mix each channel with its neighbours, scale (ECA, Wang et al. 2020, 1910.03151).

    One odd `kernel` slides along the channels; no weight belongs to a channel. It is a 2-D convolution, 1 x kernel over
    [N, 1, 1, C], since these are what runtimes have in integers. The pooled channels are reshaped, not transposed:
    ONNX Runtime moves transposes on to the maps, where they take time.
    """

    def __init__(self, kernel: int) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(1, 1, (1, kernel), padding=(0, kernel // 2), bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map [N, C, H, W] with each channel scaled."""
        pooled = self.avgpool(x)
        row = pooled.reshape(x.shape[0], 1, 1, x.shape[1])
        scaled: Tensor = self.sigmoid(self.conv(row).reshape(pooled.shape)) * x
        return scaled


def eca_kernel(channels: int) -> int:
    """Return the odd number nearest to log2(channels) / 2 + 1 / 2, the larger of two (ECA-Net, equation 12)."""
    return 2 * int((math.log2(channels) + 1) / 4) + 1


class StochasticDepth(nn.Module):
    """Drop whole images of a residual branch with probability `p` while training (Huang et al. 2016, 1603.09382)."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C, H, W]: each image 0 or divided by 1 - p; in eval mode the input itself."""
        if not self.training or self.p == 0:
            return x
        return x * functional.dropout(torch.ones_like(x[:, :1, :1, :1]), self.p)

    def extra_repr(self) -> str:
        """Show the probability in the module's printout."""
        return f"p={self.p}"


class InvertedResidual(nn.Module):
    """Expand, filter each channel, attend, project: the block of MobileNetV3 and EfficientNet.

    As in the reference implementation there is no expansion where `hidden` equals `inputs`, and a shortcut where
    neither stride nor channel count changes.
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
        return self.stochastic_depth(result) + x if self.has_shortcut else result


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a scaled channel count to a multiple of `divisor`, never by more than 10 % down (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


def initialise_(module: nn.Module) -> None:
    """Draw the weights as the reference implementation does for mobile networks: linear ones with deviation 0.01."""
    initialise_convolutions_(module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
            nn.init.zeros_(layer.bias)


def initialise_convolutions_(module: nn.Module) -> None:
    """Draw convolutions from a normal with fan-out scaling (He et al. 2015, 1502.01852, equation 14); biases are 0."""
    for layer in module.modules():
        # Without storage there is nothing to draw, and the draw would be most of the time to open a file.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
