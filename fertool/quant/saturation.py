"""What INT8 answers on x86 processors without VNNI, which add pairs of products in 16 bits and saturate.

Their instruction multiplies unsigned activations with signed weights and adds neighbours (vpmaddubsw); with VNNI, and
on ARM, sums have 32 bits. Depthwise convolutions have kernels of their own, which do not saturate.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from fertool.models.quantized import QuantConv2d, QuantizedNet, Quantizer, QuantLinear
from fertool.spec import InputSpec

_LARGEST, _SMALLEST = 2**15 - 1, -(2**15)
_BYTE = 255


def can_saturate(net: QuantizedNet) -> bool:
    """Return whether any activations at all could make a pair of products leave 16 bits."""
    return any(bool(_risky(_rows(layer)).any()) for layer in _layers(net))


def saturating(net: QuantizedNet, input: InputSpec) -> QuantizedNet:
    """Return a copy of a quantised network whose sums saturate as on a processor without VNNI.

    Pairs are neighbours in the order of kernel rows, columns and channels, which is that of channels-last kernels.
    """
    result = copy.deepcopy(net)
    for original, layer in zip(_layers(net), _layers(result), strict=True):
        source = original.source
        zero_point = (
            source.zero_point.item() if isinstance(source, Quantizer) else input.zero_point[0]
        )
        layer.register_forward_hook(
            _Saturation(layer, float(original.input_scale()), int(zero_point))
        )
    return result


class _Saturation:
    """Takes from the output of a layer what its saturated pairs lose."""

    def __init__(self, layer: QuantConv2d | QuantLinear, scale: float, zero_point: int) -> None:
        self.rows = _rows(layer)
        self.risky = _risky(self.rows)
        self.scale, self.zero_point = scale, zero_point

    def __call__(self, layer: Any, inputs: tuple[Tensor], output: Tensor) -> Tensor:
        columns = _columns(layer, inputs[0]) / self.scale + self.zero_point
        pairs = columns.round().clamp(0, _BYTE).reshape(len(columns), -1, 2, columns.shape[-1])
        lost = (
            torch.zeros_like(output).flatten(2)
            if output.dim() == 4
            else torch.zeros_like(output).unsqueeze(2)
        )
        group_rows, group_pairs = len(self.rows) // _groups(layer), self.rows.shape[1]
        for row in self.risky.any(dim=1).nonzero().flatten().tolist():
            chosen = self.risky[row].nonzero().flatten()
            first = row // group_rows * group_pairs
            sums = (pairs[:, first + chosen] * self.rows[row, chosen][None, :, :, None]).sum(dim=2)
            lost[:, row] = (sums - sums.clamp(_SMALLEST, _LARGEST)).sum(dim=1)
        unit = (self.scale * layer.weight_scale.float())[None, :, None]
        saturated: Tensor = output - (lost * unit).reshape(output.shape)
        return saturated


def _layers(net: nn.Module) -> list[QuantConv2d | QuantLinear]:
    layers = [layer for layer in net.modules() if isinstance(layer, QuantConv2d | QuantLinear)]
    return [layer for layer in layers if _groups(layer) == 1 or layer.weight.shape[1] > 1]


def _groups(layer: QuantConv2d | QuantLinear) -> int:
    return layer.groups if isinstance(layer, QuantConv2d) else 1


def _rows(layer: QuantConv2d | QuantLinear) -> Tensor:
    """The weight as pairs, float32 [out, pairs, 2], an odd one with a zero."""
    weight = layer.weight.permute(0, 2, 3, 1) if layer.weight.dim() == 4 else layer.weight
    rows = weight.flatten(1).float()
    even = nn.functional.pad(rows, (0, rows.shape[1] % 2))
    return even.reshape(len(rows), -1, 2)


def _risky(rows: Tensor) -> Tensor:
    """Which pairs could leave 16 bits, bool [out, pairs]."""
    high, low = _BYTE * rows.clamp(min=0).sum(dim=2), _BYTE * rows.clamp(max=0).sum(dim=2)
    return (high > _LARGEST) | (low < _SMALLEST)


def _columns(layer: QuantConv2d | QuantLinear, values: Tensor) -> Tensor:
    """The values that each output reads, [N, groups x an even number, outputs], in the order of the weights."""
    if isinstance(layer, QuantLinear):
        columns = values[:, None, :, None]
    else:
        assert not isinstance(layer.padding, str)
        places = nn.functional.unfold(
            values, layer.kernel_size, layer.dilation, layer.padding, layer.stride
        )
        inputs = layer.in_channels // layer.groups
        by_group = places.reshape(len(values), layer.groups, inputs, -1, places.shape[-1])
        columns = by_group.transpose(2, 3).flatten(2, 3)
    return nn.functional.pad(columns, (0, 0, 0, columns.shape[2] % 2)).flatten(1, 2)
