"""Blocks that several families share, with the parameter names of the reference implementation.

Width keys: a channel count that can be chosen on its own has a key, the path of the module that first makes these
channels (`features.3.conv.0`). Counts tied by additions share one key, and so does a whole stage (`layer2`) where
every block adds onto the same channels. Which layers exist follows from the default widths, never from reduced ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fertool.errors import UsageError

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
        self, channels: int, squeezed: int, *, act: Factory = nn.ReLU, scale_act: Factory = nn.Sigmoid
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

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.channels = channels
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.conv = nn.Conv2d(1, 1, (1, kernel), padding=(0, kernel // 2), bias=False)
        self.sigmoid = nn.Sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        """Return the map [N, C, H, W] with each channel scaled."""
        row = self.avgpool(x).reshape(-1, 1, 1, self.channels)
        scaled: Tensor = self.sigmoid(self.conv(row).reshape(-1, self.channels, 1, 1)) * x
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


@dataclass(frozen=True)
class BlockPlan:
    """One inverted residual, its channel counts given as width keys; equal keys mean tied channels."""

    source: str
    hidden: str
    squeeze: str | None
    out: str
    kernel: int
    stride: int


def plan_block(
    widths: dict[str, int],
    name: str,
    source: str,
    *,
    hidden: int,
    out: int,
    squeeze: int | None,
    kernel: int,
    stride: int,
) -> BlockPlan:
    """Lay out one inverted residual at path `name` and add its default channel counts to `widths`.

    As in the reference implementation there is no expansion where `hidden` equals the input's channels, and a
    shortcut where neither stride nor channel count changes.
    """
    depth = f"{name}.block"
    expands = hidden != widths[source]
    shortcut = stride == 1 and out == widths[source]
    keys = BlockPlan(
        source=source,
        hidden=f"{depth}.0" if expands else source,
        squeeze=f"{depth}.{1 + expands}.fc1" if squeeze else None,
        out=source if shortcut else f"{depth}.{1 + expands + bool(squeeze)}",
        kernel=kernel,
        stride=stride,
    )
    widths.setdefault(keys.hidden, hidden)
    if keys.squeeze and squeeze:
        widths[keys.squeeze] = squeeze
    widths.setdefault(keys.out, out)
    return keys


def removable_blocks(plans: Iterable[BlockPlan]) -> Blocks:
    """Return the blocks that have a shortcut and hidden channels of their own."""
    return {
        plan.hidden.rpartition(".block.")[0]: (plan.hidden, *([plan.squeeze] if plan.squeeze else []))
        for plan in plans
        if plan.out == plan.source != plan.hidden
    }


def inverted_residual(plan: BlockPlan, widths: Mapping[str, int], **parts: Any) -> nn.Module:
    """Return an InvertedResidual, or nothing but its shortcut where it has no width."""
    return InvertedResidual(plan, widths, **parts) if widths[plan.hidden] else nn.Identity()


class InvertedResidual(nn.Module):
    """Expand, filter each channel, squeeze-and-excite, project: the block of MobileNetV3 and EfficientNet."""

    def __init__(
        self,
        plan: BlockPlan,
        widths: Mapping[str, int],
        *,
        norm: Norm,
        act: Factory,
        squeeze: Callable[[int, int], nn.Module],
        drop_branch: float = 0.0,
    ) -> None:
        super().__init__()
        source, hidden, out = widths[plan.source], widths[plan.hidden], widths[plan.out]
        layers: list[nn.Module] = []
        if plan.hidden != plan.source:
            layers.append(ConvNormAct(source, hidden, norm=norm, act=act))
        layers.append(ConvNormAct(hidden, hidden, plan.kernel, plan.stride, groups=hidden, norm=norm, act=act))
        if plan.squeeze is not None:
            layers.append(squeeze(hidden, widths[plan.squeeze]))
        layers.append(ConvNormAct(hidden, out, norm=norm))
        self.block = nn.Sequential(*layers)
        self.has_shortcut = plan.out == plan.source
        self.stochastic_depth = StochasticDepth(drop_branch)

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        result: Tensor = self.block(x)
        return self.stochastic_depth(result) + x if self.has_shortcut else result


def make_divisible(value: float, divisor: int = 8) -> int:
    """Round a scaled channel count to a multiple of `divisor`, never by more than 10 % down (MobileNet's rule)."""
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


Blocks = Mapping[str, tuple[str, ...]]
"""By the path of a residual block, the width keys that are its own; where they are 0 the shortcut stands alone."""


def check_widths(
    given: Mapping[str, int] | None, default: Mapping[str, int], blocks: Blocks | None = None
) -> dict[str, int]:
    """Return the widths to build: `given`, or the default; raises ValueError naming missing, unknown or bad keys.

    The own widths of each of the `blocks` may be 0, all of them at once.
    """
    if given is None:
        return dict(default)
    gone = {key for keys in (blocks or {}).values() if not any(given.get(key) for key in keys) for key in keys}
    problems = [f"{key} is missing" for key in default if key not in given]
    problems += [f"{key} is unknown" for key in given if key not in default]
    problems += [
        f"{key} is {value!r}"
        for key, value in given.items()
        if not isinstance(value, int) or value < (0 if key in gone else 1)
    ]
    if problems:
        raise ValueError(f"widths: {', '.join(problems)}")
    return dict(given)


def check_args(
    *, strides: Mapping[str, int], width_mult: float = 1.0, probabilities: Mapping[str, float] | None = None
) -> None:
    """Raise UsageError, naming the argument, for a stride other than 1 and 2 or a value out of range."""
    for name, stride in strides.items():
        if stride not in (1, 2):
            raise UsageError(f"--arch-arg {name}={stride}: not a stride", f"{name}=1 or {name}=2")
    if not 0 < width_mult < math.inf:
        raise UsageError(f"--arch-arg width_mult={width_mult}: not above 0", "for example width_mult=0.5")
    for name, value in (probabilities or {}).items():
        if not 0 <= value < 1:
            raise UsageError(f"--arch-arg {name}={value}: not a probability below 1", f"for example {name}=0.2")


def first_strided(strides: Iterable[int]) -> int:
    """Return the position of the first stride above 1."""
    return next(index for index, stride in enumerate(strides) if stride > 1)


def initialise_(module: nn.Module, linear_: Callable[[nn.Linear], object] | None = None) -> None:
    """Draw the weights as the reference implementation does for mobile networks.

    Convolutions as `initialise_convolutions_` has them; biases 0; linear weights by `linear_`, else normal with
    deviation 0.01.
    """
    initialise_convolutions_(module)
    for layer in module.modules():
        if isinstance(layer, nn.Linear) and linear_:
            linear_(layer)
        elif isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.01)
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


def initialise_convolutions_(module: nn.Module) -> None:
    """Draw convolution weights from a normal with fan-out scaling (He et al. 2015, arXiv 1502.01852, equation 14)."""
    for layer in module.modules():
        # Without storage there is nothing to draw, and the draw would be most of the time to open a file.
        if isinstance(layer, nn.Conv2d) and not layer.weight.is_meta:
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
