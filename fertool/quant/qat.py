"""Quantization-aware training: a network with fake quantization whose scales are learned.

Scales are learned by LSQ (Esser et al. 2020, arXiv 1902.08153, equations 1 to 5): in the forward
pass a value v becomes `round(clip(v / s)) s`; the backward pass takes rounding for the identity,
which gives the scale s its gradient too. Batch norm is folded before, so that the network trains as
it will run; it starts at the integers of the network that was quantized after training, whose
errors compensate for each other.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from fertool.graph.network import Network, clone_tensors
from fertool.models.quantized import (
    FLOAT_BIAS_UNIT,
    QuantConv2d,
    QuantizedNet,
    Quantizer,
    QuantLinear,
    UnitQuantizer,
    per_channel,
    starts_at_knee,
)
from fertool.quant.weight_rounding import set_bias
from fertool.spec import QuantSpec, WeightQuant

# The smallest positive number of float16, which the scales of weights are stored in.
_SMALLEST_SCALE = 2.0**-24


class QATNet(Network):
    """An integer network whose weights, biases and scales are parameters.

    `learned` are its quantizers by name.
    """

    def __init__(self, net: QuantizedNet, quant: QuantSpec) -> None:
        super().__init__(net.graph, net.image)
        self._copy_float_tensors(net, quant)
        self.learned: dict[str, _LearnedQuantizer] = {}
        for name, quantizer in net.quantizers.items():
            self.learned[name] = _LearnedQuantizer(quantizer)

        # The order of the parameters is part of the states of interrupted runs, and decides the
        # last bits of norms over all gradients: those of points with several nodes come first.
        uses = Counter(map(id, net.inserted.values()))
        shared: dict[str, nn.Module] = {}
        others: dict[str, nn.Module] = {}
        for name, inserted in net.inserted.items():
            kind = shared if uses[id(inserted)] > 1 else others
            kind[name] = inserted
        self._insert_learned(shared)
        for name, rule in quant.weights.items():
            self._replace_layer(name, net.layer(name), rule)
        self._insert_learned(others)
        self.train(net.training)

    def _replace_layer(self, name: str, layer: nn.Module | None, rule: WeightQuant) -> None:
        """Put a layer with learned scales at the node of an integer one."""
        assert isinstance(layer, QuantConv2d | QuantLinear)
        source = layer.source
        learned: _LearnedQuantizer | float
        if isinstance(source, Quantizer):
            learned = self.learned[source.point]
        else:
            # A layer that reads pixels or floats has a constant unit of its bias.
            learned = FLOAT_BIAS_UNIT if source is None else source
        limits = torch.tensor(rule.limits(len(layer.weight)), dtype=torch.float32)
        if isinstance(layer, QuantConv2d):
            self.replace(name, _LearnedConv2d(layer, limits, learned))
        else:
            self.replace(name, _LearnedLinear(layer, limits, learned))

    def _insert_learned(self, quantizers: Mapping[str, nn.Module]) -> None:
        """Insert a learned quantizer behind each node where the integer network has these."""
        for name, quantizer in quantizers.items():
            # Unit quantizers are quantizers, too: their scale is fixed.
            if isinstance(quantizer, UnitQuantizer):
                self.insert_after(name, _LearnedGate())
            elif isinstance(quantizer, Quantizer):
                self.insert_after(name, self.learned[quantizer.point])

    def _copy_float_tensors(self, net: QuantizedNet, quant: QuantSpec) -> None:
        """Take copies of the tensors of all layers but those that get learned ones."""
        tensors = net.state_dict()
        integers = set()
        for layer in quant.weights:
            integers.update({f"{layer}.weight", f"{layer}.bias"})
        kept = {name: tensors[name] for name in self.state_dict() if name not in integers}
        # Not strict: the layers without tensors are replaced.
        self.load_state_dict(clone_tensors(kept), strict=False, assign=True)


def prepare_qat(net: QuantizedNet, quant: QuantSpec) -> QATNet:
    """Return a copy of an integer network whose weights, biases and scales are parameters.

    Its outputs are the same.
    """
    return QATNet(net, quant)


@torch.no_grad()
def convert(trained: QATNet, net: QuantizedNet, quant: QuantSpec) -> None:
    """Fill `net`, in place, with the integers and scales of a trained copy of it."""
    for name, index in net.grids.index.items():
        net.grids.scale[index] = trained.learned[name].step()
    for name in quant.weights:
        layer, learned = net.layer(name), trained.layer(name)
        assert isinstance(layer, QuantConv2d | QuantLinear)
        assert isinstance(learned, _LearnedConv2d | _LearnedLinear)
        layer.weight_scale.copy_(learned.scales())
        layer.weight.copy_(learned.integers())
        # Last: the unit of the bias is the product of the scales.
        set_bias(layer, learned.bias.double())
    # Of layers that stay float.
    for name, parameter in net.named_parameters():
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


def _scale_gradient(scale: Tensor, factor: Tensor | float) -> Tensor:
    """Return the same scale with `factor` times the gradient: LSQ's g, section 2.2.

    All values that share a scale push it: unscaled, it would learn faster than they.
    """
    return _straight_through(scale * factor, scale.detach())


class _LearnedGate(nn.Module):
    """A rounded sigmoid, through whose rounding gradients pass."""

    def __init__(self) -> None:
        super().__init__()
        # In a tuple, so that it does not become a submodule.
        self._rounding = (UnitQuantizer(),)

    def forward(self, gate: Tensor) -> Tensor:
        return _straight_through(gate, self._rounding[0](gate))


class _LearnedQuantizer(nn.Module):
    """Fake quantization of activations with a learned scale and a constant zero point.

    Where -3 is the first value both are constant: HardSwish on integers depends on it.
    """

    zero_point: Tensor

    def __init__(self, quantizer: Quantizer) -> None:
        super().__init__()
        self.high = quantizer.high
        self.scale = nn.Parameter(quantizer.scale.detach().clone())
        self.register_buffer("zero_point", quantizer.zero_point.detach().float())
        is_constant = starts_at_knee(self.scale.item(), int(self.zero_point))
        self.scale.requires_grad_(not is_constant)

    def step(self) -> Tensor:
        """Return the scale as it is used, positive."""
        return self.scale.clamp(min=_SMALLEST_SCALE)

    def forward(self, values: Tensor) -> Tensor:
        factor = 1 / math.sqrt(self.high * values[0].numel())
        scale = _scale_gradient(self.step(), factor)
        scaled = (values / scale).clamp(-self.zero_point, self.high - self.zero_point)
        return _straight_through(scaled, scaled.round()) * scale


class _LearnedLayer(nn.Module):
    """What the two layers share: float `weight` and `bias`, and `scale` [out]."""

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
        # In a tuple, so that the quantizer does not become a part of each layer that reads it.
        self._source = (source,)

    def scales(self) -> Tensor:
        """Return the scales as float16 holds them, [out]."""
        scale = self.scale.clamp(min=_SMALLEST_SCALE)
        return _straight_through(scale, scale.half().float())

    def _scaled(self, scales: Tensor) -> Tensor:
        return torch.minimum(torch.maximum(self.weight / scales, -self.limits), self.limits)

    def integers(self) -> Tensor:
        """Return the integers that the weights round to."""
        return self._scaled(per_channel(self.scales(), self.weight)).round()

    def rounded_bias(self) -> Tensor:
        """Return the bias in units of input scale x weight scale: of few bits, they are coarse."""
        (source,) = self._source
        input_scale = source if isinstance(source, float) else source.step().detach()
        unit = input_scale * self.scales().detach()
        return _straight_through(self.bias, (self.bias / unit).round() * unit)

    def rounded_weight(self) -> Tensor:
        """Return the weights that the layer computes with; those of a channel share a scale."""
        factor = (self.limits * self.weight[0].numel()).rsqrt()
        scales = _scale_gradient(per_channel(self.scales(), self.weight), factor)
        scaled = self._scaled(scales)
        return _straight_through(scaled, scaled.round()) * scales


class _LearnedConv2d(_LearnedLayer, nn.Conv2d):  # type: ignore[misc]  # a bias there may be None
    def __init__(
        self, layer: QuantConv2d, limits: Tensor, source: _LearnedQuantizer | float
    ) -> None:
        # On the meta device: `_learn` brings the parameters.
        nn.Conv2d.__init__(
            self,
            layer.in_channels,
            layer.out_channels,
            layer.kernel_size,  # type: ignore[arg-type]
            layer.stride,  # type: ignore[arg-type]
            layer.padding,  # type: ignore[arg-type]
            layer.dilation,  # type: ignore[arg-type]
            layer.groups,
            device="meta",
            padding_mode=layer.padding_mode,
        )
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
