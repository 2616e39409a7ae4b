"""Modules that torch's exporter traces to the ONNX operators of an exported file.

Integer layers become pairs of QuantizeLinear and DequantizeLinear around float operators, with
weights and biases as integer constants, which runtimes turn into integer operators.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from fertool.models.dynamic_network import ImageGate
from fertool.models.quantized import (
    QuantConv2d,
    QuantizedNet,
    Quantizer,
    QuantLinear,
    dequantize,
    quantize,
)
from fertool.models.quantizer_points import exact_pixels
from fertool.spec import InputSpec

_MAX_UINT8 = torch.iinfo(torch.uint8).max


class _Dequantize(torch.autograd.Function):
    """DequantizeLinear; `axis` is that of the channels, or None for one scale in all."""

    @staticmethod
    def forward(
        ctx: Any, integers: Tensor, scale: Tensor, zero_point: Tensor | None, axis: int | None
    ) -> Tensor:
        shape = [1] * integers.dim()
        if axis is not None:
            shape[axis] = -1
        zero = 0 if zero_point is None else zero_point.reshape(shape).float()
        return dequantize(integers, scale.reshape(shape), zero)

    @staticmethod
    def symbolic(g: Any, integers: Any, scale: Any, zero_point: Any, axis: int | None) -> Any:
        inputs = [integers, scale]
        if zero_point is not None:
            inputs.append(zero_point)
        if axis is None:
            return g.op("DequantizeLinear", *inputs)
        return g.op("DequantizeLinear", *inputs, axis_i=axis)


class _QuantizeUint8(torch.autograd.Function):
    """QuantizeLinear to uint8 with one scale, and for fewer than 8 bits a Clip of the bytes."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, scale: Tensor, zero_point: Tensor, high: int) -> Tensor:
        return quantize(values, scale, zero_point, 0, high).to(torch.uint8)

    @staticmethod
    def symbolic(g: Any, values: Any, scale: Any, zero_point: Any, high: int) -> Any:
        integers = g.op("QuantizeLinear", values, scale, zero_point)
        if high == _MAX_UINT8:
            return integers
        # The Clip comes last, so that a runtime can fuse the QuantizeLinear with the operator
        # before it.
        low_constant = g.op("Constant", value_t=torch.tensor(0, dtype=torch.uint8))
        high_constant = g.op("Constant", value_t=torch.tensor(high, dtype=torch.uint8))
        return g.op("Clip", integers, low_constant, high_constant)


def _dequantize(
    integers: Tensor, scale: Tensor, zero_point: Tensor | None = None, axis: int | None = None
) -> Tensor:
    apply: Callable[..., Tensor] = _Dequantize.apply
    return apply(integers, scale, zero_point, axis)


class PixelNetwork(nn.Module):
    """A network behind the normalization of raw pixels: uint8 [N, C, S, S] to logits [N, K]."""

    scale: Tensor
    zero_point: Tensor
    axis: int | None

    def __init__(self, network: nn.Module, input: InputSpec) -> None:
        super().__init__()
        self.network = network
        # Where one scale serves all channels, the pixels are the integers that the first layer
        # reads.
        zero_type = torch.uint8 if input.integer_zero_point else torch.float32
        if exact_pixels(input):
            self.axis = None
            scale = torch.tensor(input.scale[0])
            zero_point = torch.tensor(input.zero_point[0], dtype=zero_type)
        else:
            self.axis = 1
            scale = torch.tensor(input.scale)
            zero_point = torch.tensor(input.zero_point, dtype=zero_type)
        self.register_buffer("scale", scale)
        self.register_buffer("zero_point", zero_point)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits of raw pixels."""
        if self.zero_point.dtype == torch.uint8:
            pixels = _dequantize(images, self.scale, self.zero_point, self.axis)
        else:
            # The zero point of a DequantizeLinear of bytes cannot lie between two pixel values.
            centered = images.float() - self.zero_point.reshape(-1, 1, 1)
            pixels = centered * self.scale.reshape(-1, 1, 1)
        logits: Tensor = self.network(pixels)
        return logits


class ProfileChoice(nn.Module):
    """A gate that returns the profile of each image itself, int64 [N]."""

    def __init__(self, gate: ImageGate) -> None:
        super().__init__()
        self.gate = gate

    def forward(self, x: Tensor) -> Tensor:
        """Return the profile of the largest logit."""
        profile: Tensor = self.gate(x).argmax(1)
        return profile


class _OnnxQuantizer(nn.Module):
    scale: Tensor
    zero_point: Tensor

    def __init__(self, source: Quantizer) -> None:
        super().__init__()
        self.register_buffer("scale", source.scale)
        self.register_buffer("zero_point", source.zero_point)
        self.high = source.high

    def forward(self, values: Tensor) -> Tensor:
        apply: Callable[..., Tensor] = _QuantizeUint8.apply
        integers = apply(values, self.scale, self.zero_point, self.high)
        return _dequantize(integers, self.scale, self.zero_point)


class _OnnxLayer(nn.Module):
    """A layer of integer weights that computes with float operators on its dequantized integers.

    Runtimes turn it into an integer operator, unless it `computes_float`.
    """

    weight: Tensor
    weight_scale: Tensor
    zero_point: Tensor | None
    bias: Tensor
    bias_scale: Tensor

    def __init__(self, source: QuantConv2d | QuantLinear) -> None:
        super().__init__()
        self.register_buffer("weight", source.weight)
        self.register_buffer("weight_scale", source.weight_scale.float())
        self.register_buffer("bias", source.bias)
        self.register_buffer("bias_scale", source.bias_scale())
        # To ONNX both are the first axis; the pass `unpack-weights` knows by the negative one which
        # weights runtimes should unpack once.
        self._axis = -source.weight.dim() if source.computes_float else 0
        # ONNX Runtime makes a QGemm only of weights that name their zero points; a QLinearConv
        # needs none.
        if isinstance(source, QuantLinear) and not source.computes_float:
            self.register_buffer("zero_point", torch.zeros(len(source.weight), dtype=torch.int8))
        else:
            self.register_buffer("zero_point", None)
        self._compute: Callable[..., Tensor] = nn.functional.linear
        if isinstance(source, QuantConv2d):
            self._compute = source._conv_forward

    def forward(self, values: Tensor) -> Tensor:
        weight = _dequantize(self.weight, self.weight_scale, self.zero_point, axis=self._axis)
        bias = _dequantize(self.bias, self.bias_scale, axis=0)
        return self._compute(values, weight, bias)


def make_onnx_network(module: nn.Module) -> nn.Module:
    """Return a copy of a quantized network whose integers become constants of the ONNX graph."""
    network = copy.deepcopy(module)
    assert isinstance(network, QuantizedNet)
    _replace_quantizers_(network)
    for node in network.graph.nodes:
        layer = network.layer(node.name)
        if isinstance(layer, QuantConv2d | QuantLinear):
            network.replace(node.name, _OnnxLayer(layer))
    return network


def _replace_quantizers_(network: QuantizedNet) -> None:
    # One quantizer may serve several values, whose scale the file should hold once.
    replacements: dict[int, _OnnxQuantizer] = {}
    for name, quantizer in network.inserted.items():
        assert isinstance(quantizer, Quantizer)
        if id(quantizer) not in replacements:
            replacements[id(quantizer)] = _OnnxQuantizer(quantizer)
        network.insert_after(name, replacements[id(quantizer)])
