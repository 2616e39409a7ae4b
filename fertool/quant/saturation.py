"""Simulates INT8 on x86 processors without VNNI, which add pairs of products in 16 bits.

Their instruction multiplies unsigned activations with signed weights and adds neighbors with
saturation (vpmaddubsw); with VNNI, and on ARM, sums have 32 bits. Depthwise convolutions have
kernels of their own, which do not saturate.
"""

from __future__ import annotations

import copy
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from fertool.models.quantized import QuantConv2d, Quantizer, QuantLinear
from fertool.spec import InputSpec

Net = TypeVar("Net", bound=nn.Module)
# The bounds of a 16-bit sum, and the largest unsigned activation.
_LARGEST = 2**15 - 1
_SMALLEST = -(2**15)
_BYTE = 255


def can_saturate(net: nn.Module) -> bool:
    """Return whether any activations at all could make a pair of products leave 16 bits."""
    return any(bool(_can_overflow(_weight_pairs(layer)).any()) for layer in _layers(net))


def simulate_saturation(net: Net, input: InputSpec) -> Net:
    """Return a copy of a quantized network whose sums saturate as on a processor without VNNI.

    Pairs are neighbors in the order of kernel rows, columns and channels, which is that of
    channels-last kernels.
    """
    result = copy.deepcopy(net)
    for original, layer in zip(_layers(net), _layers(result), strict=True):
        zero_point = input.zero_point[0]
        # All but the first layers read activations, not pixels.
        if isinstance(original.source, Quantizer):
            zero_point = original.source.zero_point.item()
        saturation = _Saturation(layer, float(original.input_scale()), int(zero_point))
        layer.register_forward_hook(saturation)
    return result


class _Saturation:
    """Forward hook that subtracts from a layer's output what its saturated pairs lose."""

    def __init__(self, layer: QuantConv2d | QuantLinear, scale: float, zero_point: int) -> None:
        self.weights = _weight_pairs(layer)
        # Most pairs cannot overflow: only the others are computed.
        self.overflows = _can_overflow(self.weights)
        self.scale, self.zero_point = scale, zero_point

    def __call__(self, layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        columns = _columns(layer, inputs[0]) / self.scale + self.zero_point
        pairs = columns.round().clamp(0, _BYTE).reshape(len(columns), -1, 2, columns.shape[-1])
        lost = torch.zeros_like(output)
        lost = lost.flatten(2) if output.dim() == 4 else lost.unsqueeze(2)

        rows_per_group = len(self.weights) // _groups(layer)
        pairs_per_group = self.weights.shape[1]
        for row in self.overflows.any(dim=1).nonzero().flatten().tolist():
            chosen = self.overflows[row].nonzero().flatten()
            first = row // rows_per_group * pairs_per_group
            weights = self.weights[row, chosen][None, :, :, None]
            sums = (pairs[:, first + chosen] * weights).sum(dim=2)
            lost[:, row] = (sums - sums.clamp(_SMALLEST, _LARGEST)).sum(dim=1)
        unit = (self.scale * layer.weight_scale.float())[None, :, None]
        saturated: Tensor = output - (lost * unit).reshape(output.shape)
        return saturated


def _layers(net: nn.Module) -> list[QuantConv2d | QuantLinear]:
    """Return the integer layers that add pairs of products: all but depthwise ones."""
    layers = []
    for layer in net.modules():
        if not isinstance(layer, QuantConv2d | QuantLinear) or layer.computes_float:
            continue
        if _groups(layer) == 1 or layer.weight.shape[1] > 1:
            layers.append(layer)
    return layers


def _groups(layer: QuantConv2d | QuantLinear) -> int:
    return layer.groups if isinstance(layer, QuantConv2d) else 1


def _weight_pairs(layer: QuantConv2d | QuantLinear) -> Tensor:
    """Return the weight as pairs, float32 [out, pairs, 2], the last completed by a zero."""
    weight = layer.weight
    if weight.dim() == 4:
        weight = weight.permute(0, 2, 3, 1)
    rows = weight.flatten(1).float()
    even = nn.functional.pad(rows, (0, rows.shape[1] % 2))
    return even.reshape(len(rows), -1, 2)


def _can_overflow(pairs: Tensor) -> Tensor:
    """Return which pairs of weights could leave 16 bits, bool [out, pairs]."""
    # Activations are unsigned: the largest sum has no negative product, the smallest no positive.
    high = _BYTE * pairs.clamp(min=0).sum(dim=2)
    low = _BYTE * pairs.clamp(max=0).sum(dim=2)
    return (high > _LARGEST) | (low < _SMALLEST)


def _columns(layer: QuantConv2d | QuantLinear, values: Tensor) -> Tensor:
    """Return the values that each output reads, in the order of the weights.

    [N, groups x an even number, outputs].
    """
    if isinstance(layer, QuantLinear):
        columns = values[:, None, :, None]
    else:
        assert not isinstance(layer.padding, str)
        windows = nn.functional.unfold(
            values, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        inputs = layer.in_channels // layer.groups
        by_group = windows.reshape(len(values), layer.groups, inputs, -1, windows.shape[-1])
        # Channels-last, as the weights.
        columns = by_group.transpose(2, 3).flatten(2, 3)
    return nn.functional.pad(columns, (0, 0, 0, columns.shape[2] % 2)).flatten(1, 2)
