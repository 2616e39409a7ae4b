"""A quantized network in PyTorch's decomposed operators, from which converters take its integers.

Each quantizer becomes a pair of `quantize` and `dequantize` with fertool's scale and zero point,
each layer one on its dequantized weight; converters put their integer operators in their place.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch

# Registers the operators.
import torch.ao.quantization.fx._decomposed
from torch import Tensor, nn

from fertool.models.quantized import IntegerLayer, QuantConv2d, QuantizedNet, QuantLinear
from fertool.models.quantizer_points import exact_pixels
from fertool.spec import InputSpec

OFFSET = 128
"""XNNPACK and LiteRT compute with int8: fertool's uint8 integers and zero points less this."""
MAX_WEIGHT = 127
"""Integer weights are symmetric around 0: from minus this to this."""
OPERATORS = torch.ops.quantized_decomposed


def with_decomposed_integers(
    module: nn.Module, input: InputSpec, make_weight: Callable[[IntegerLayer], nn.Module]
) -> Any:
    """Return a copy of a quantized network in operators that converters know.

    `make_weight` returns a module without inputs that computes the float32 weight of a layer from
    its integers. The layer of the logits has floats, since no quantizer follows it, and so do
    layers that compute with floats.
    """
    network = copy.deepcopy(module)
    assert isinstance(network, QuantizedNet)
    # Before the layers that they are the sources of are replaced.
    rounded: dict[int, nn.Module] = {}
    for name, quantizer in network.inserted.items():
        assert isinstance(quantizer, nn.Module)
        if id(quantizer) not in rounded:
            rounded[id(quantizer)] = _rounding_of(quantizer)
        network.insert_after(name, rounded[id(quantizer)])

    for node in network.graph.nodes:
        layer = network.layer(node.name)
        if isinstance(layer, QuantConv2d | QuantLinear):
            has_floats = layer.computes_float or node.name == network.graph.output
            weight = _FloatWeight(layer) if has_floats else make_weight(layer)
            network.replace(node.name, _Layer(layer, weight))
    if exact_pixels(input):
        # Normalized pixels are integers times a scale already; this tells the converter so.
        pixels = Rounding(input.scale[0], int(input.zero_point[0]), high=255)
        network.insert_after(network.graph.input, pixels)
    # Converters would follow the unsigned integers of the zero points, which no operator reads.
    network.grids = nn.Identity()  # type: ignore[assignment]
    return network


def _rounding_of(quantizer: Any) -> nn.Module:
    return Rounding(float(quantizer.scale), int(quantizer.zero_point), quantizer.high)


class Rounding(nn.Module):
    """Rounds to the integers 0 to `high`, as int8."""

    def __init__(self, scale: float, zero_point: int, high: int) -> None:
        super().__init__()
        self._integers = (scale, zero_point - OFFSET, -OFFSET, high - OFFSET, torch.int8)

    def forward(self, values: Tensor) -> Tensor:
        """Return the nearest values that integers stand for."""
        quantized = OPERATORS.quantize_per_tensor(values, *self._integers)
        result: Tensor = OPERATORS.dequantize_per_tensor(quantized, *self._integers)
        return result


class _FloatWeight(nn.Module):
    weight: Tensor

    def __init__(self, layer: IntegerLayer) -> None:
        super().__init__()
        self.register_buffer("weight", layer.float_weight())

    def forward(self) -> Tensor:
        return self.weight


class ChannelScales(nn.Module):
    """The scales of a weight [out], and the zero points of its int8 values, which are 0."""

    scale: Tensor
    zero_point: Tensor

    def __init__(self, layer: IntegerLayer) -> None:
        super().__init__()
        self.register_buffer("scale", layer.weight_scale.float())
        self.register_buffer("zero_point", torch.zeros(len(layer.weight), dtype=torch.int64))

    def dequantize(self, weight: Tensor) -> Tensor:
        """Return float32 of an int8 weight [out, ...]."""
        result: Tensor = OPERATORS.dequantize_per_channel(weight, *self.arguments())
        return result

    def arguments(self) -> tuple[Any, ...]:
        """Return what the operators take behind the weight."""
        return (self.scale, self.zero_point, 0, -MAX_WEIGHT, MAX_WEIGHT, torch.int8)


class _Layer(nn.Module):
    """A layer on a weight that a module computes."""

    bias: Tensor

    def __init__(self, layer: Any, weight: nn.Module) -> None:
        super().__init__()
        self.weight = weight
        self.register_buffer("bias", layer.float_bias())
        # A method, not the layer itself, whose own tensors converters would follow.
        is_convolution = isinstance(layer, QuantConv2d)
        self._compute = layer._conv_forward if is_convolution else nn.functional.linear

    def forward(self, values: Tensor) -> Tensor:
        result: Tensor = self._compute(values, self.weight(), self.bias)
        return result
