"""Quantisation-aware training: a network that rounds as the integer one will, and learns weights and steps for it.

Steps are learned (LSQ: Esser et al. 2020, arXiv 1902.08153, equations 1 to 5): in the forward pass a value v becomes
`round(clip(v / s)) s`; the backward pass takes rounding for the identity, which gives the step s its gradient too.
Batch norm is folded before, so that the network trains as it will run; it starts at the integers of the network that
was quantised after training, whose errors make up for each other.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from fertool.models.quantized import (
    QuantConv2d,
    QuantizedNet,
    Quantizer,
    QuantLinear,
    UnitQuantizer,
    per_channel,
    reaches_knee,
)
from fertool.quant.weight_rounding import set_bias
from fertool.spec import QuantSpec

_SMALLEST_STEP = 2.0**-24


class LearningNet(QuantizedNet):
    """An integer network whose weights, biases and steps are parameters; `learned` are its quantisers by site."""

    learned: dict[str, _LearnedQuantizer]


def trainable(net: QuantizedNet, quant: QuantSpec) -> LearningNet:
    """Return a copy of an integer network whose weights, biases and steps are parameters; it answers the same."""
    copied = copy.deepcopy(net)
    copied.__class__ = LearningNet
    assert isinstance(copied, LearningNet)
    copied.learned = {
        site: _LearnedQuantizer(quantizer) for site, quantizer in copied.quantizers.items()
    }
    for name, rule in quant.weights.items():
        layer = copied.layer(name)
        assert isinstance(layer, QuantConv2d | QuantLinear)
        source = (
            layer.source if isinstance(layer.source, float) else copied.learned[layer.source.site]
        )
        limits = torch.tensor(rule.limits(len(layer.weight)), dtype=torch.float32)
        if isinstance(layer, QuantConv2d):
            copied.replace(name, _LearnedConv2d(layer, limits, source))
        else:
            copied.replace(name, _LearnedLinear(layer, limits, source))
    for name, quantizer in copied.inserted.items():
        if isinstance(quantizer, UnitQuantizer):
            copied.insert_after(name, _LearnedGate())
        elif isinstance(quantizer, Quantizer):
            copied.insert_after(name, copied.learned[quantizer.site])
    # The grids of all sites have become parameters.
    del copied.grids
    copied.quantizers.clear()
    return copied


@torch.no_grad()
def settle(trained: LearningNet, net: QuantizedNet, quant: QuantSpec) -> None:
    """Fill in the integers of `net` with what a trained copy of it rounds to."""
    for site, index in net.grids.index.items():
        net.grids.scale[index] = trained.learned[site].step()
    for name in quant.weights:
        layer, learned = net.layer(name), trained.layer(name)
        assert isinstance(layer, QuantConv2d | QuantLinear)
        assert isinstance(learned, _LearnedConv2d | _LearnedLinear)
        layer.weight_scale.copy_(learned.steps())
        layer.weight.copy_(learned.integers())
        set_bias(layer, learned.bias.double())
    for name, parameter in net.named_parameters():  # of layers that stay float
        parameter.copy_(trained.get_parameter(name))


class _StraightThrough(torch.autograd.Function):
    """A function whose derivative is taken for 1."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, rounded: Tensor) -> Tensor:
        return rounded

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


def _straight_through(values: Tensor, rounded: Tensor) -> Tensor:
    result: Tensor = _StraightThrough.apply(values, rounded)  # type: ignore[no-untyped-call]
    return result


def _slowed(step: Tensor, factor: Tensor | float) -> Tensor:
    """Return the same step with `factor` times the gradient: as many values push it as share it (equation 5)."""
    return _straight_through(step * factor, step.detach())


class _LearnedGate(nn.Module):
    """A rounded sigmoid, through whose rounding gradients pass."""

    def __init__(self) -> None:
        super().__init__()
        self._rounding = (UnitQuantizer(),)

    def forward(self, gate: Tensor) -> Tensor:
        return _straight_through(gate, self._rounding[0](gate))


class _LearnedQuantizer(nn.Module):
    """Rounds activations to a grid whose step is learned; the zero point stays.

    Where -3 is the first value of the grid both stay: HardSwish on integers depends on it.
    """

    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.high = quantizer.high
        self.scale = nn.Parameter(quantizer.scale.detach().clone())
        self.register_buffer("zero_point", quantizer.zero_point.detach().float())
        self.scale.requires_grad_(not reaches_knee(self.scale.item(), int(self.zero_point)))

    def step(self) -> Tensor:
        return self.scale.clamp(min=_SMALLEST_STEP)

    def forward(self, values: Tensor) -> Tensor:
        step = _slowed(self.step(), 1 / math.sqrt(self.high * values[0].numel()))
        scaled = (values / step).clamp(-self.zero_point, self.high - self.zero_point)
        return _straight_through(scaled, scaled.round()) * step


class _LearnedLayer(nn.Module):
    """What the two layers share: float `weight` and `bias`, and `scale` [out], the step of each output channel."""

    weight: Tensor
    bias: Tensor
    scale: nn.Parameter
    limits: Tensor

    def _learn(
        self, layer: QuantConv2d | QuantLinear, limits: Tensor, source: _LearnedQuantizer | float
    ) -> None:
        self.weight = nn.Parameter(layer.float_weight())
        self.bias = nn.Parameter(layer.float_bias())
        self.scale = nn.Parameter(layer.weight_scale.float())
        self.register_buffer("limits", per_channel(limits.to(self.weight.device), self.weight))
        self._source = (source,)

    def steps(self) -> Tensor:
        """Return the steps as float16 holds them, [out]."""
        step = self.scale.clamp(min=_SMALLEST_STEP)
        return _straight_through(step, step.half().float())

    def _scaled(self, steps: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(self.weight / steps, -self.limits), self.limits)

    def integers(self) -> Tensor:
        """Return the integers that the weights round to."""
        return self._scaled(per_channel(self.steps(), self.weight)).round()

    def rounded_bias(self) -> Tensor:
        """Return the bias in whole units of input step x weight step: of few bits, they are coarse."""
        (source,) = self._source
        unit = (
            source if isinstance(source, float) else source.step().detach()
        ) * self.steps().detach()
        return _straight_through(self.bias, (self.bias / unit).round() * unit)

    def rounded_weight(self) -> Tensor:
        """Return the weights that the layer computes with; those of a channel share a step."""
        factor = (self.limits * self.weight[0].numel()).rsqrt()
        steps = _slowed(per_channel(self.steps(), self.weight), factor)
        scaled = self._scaled(steps)
        return _straight_through(scaled, scaled.round()) * steps


class _LearnedConv2d(_LearnedLayer, nn.Conv2d):  # type: ignore[misc]  # a bias there may be None
    def __init__(
        self, layer: QuantConv2d, limits: Tensor, source: _LearnedQuantizer | float
    ) -> None:
        shape = (
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.dilation,
        )
        mode = layer.padding_mode
        nn.Conv2d.__init__(self, *shape, layer.groups, device="meta", padding_mode=mode)  # type: ignore[arg-type]
        self._learn(layer, limits, source)

    def forward(self, input: Tensor) -> Tensor:
        output: Tensor = self._conv_forward(input, self.rounded_weight(), self.rounded_bias())
        return output


class _LearnedLinear(_LearnedLayer, nn.Linear):  # type: ignore[misc]  # a bias there may be None
    def __init__(
        self, layer: QuantLinear, limits: Tensor, source: _LearnedQuantizer | float
    ) -> None:
        nn.Linear.__init__(self, layer.in_features, layer.out_features, device="meta")
        self._learn(layer, limits, source)

    def forward(self, input: Tensor) -> Tensor:
        return nn.functional.linear(input, self.rounded_weight(), self.rounded_bias())
