"""Tensors of a quantized network as a file holds them: weights of fewer than 8 bits packed."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from fertool.artifact import bit_packing
from fertool.spec import WEIGHT_BITS, QuantSpec

PLANES_PREFIX = "planes"
"""Packed weights are tensors of a file under this name, by the bits of their digits."""


def pack_tensors(quant: QuantSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a file from those of a network; weights below 8 bits are packed."""
    bits = _packed_bits(quant, tensors)
    stored = {name: tensor for name, tensor in tensors.items() if name not in bits}
    if bits:
        for digit, plane in bit_packing.pack(tensors, bits).items():
            stored[f"{PLANES_PREFIX}.{digit}"] = plane
    return stored


def unpack_tensors(
    quant: QuantSpec, stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors of a network from those of a file; `wanted` has their shapes."""
    bits = _packed_bits(quant, wanted)
    tensors = {}
    by_digit = {}
    for name, tensor in stored.items():
        digit = name.removeprefix(f"{PLANES_PREFIX}.")
        if digit != name:
            by_digit[int(digit)] = tensor
        else:
            tensors[name] = tensor
    shapes = {name: wanted[name].shape for name in bits}
    return tensors | bit_packing.unpack(by_digit, bits, shapes)


def average_bits(quant: QuantSpec, net: nn.Module) -> float:
    """Return the mean bits of a weight of a quantized network, as a file stores it."""
    bits = 0
    count = 0
    for name, rule in quant.weights.items():
        weight = net.get_buffer(f"{name}.weight")
        bits += sum(rule.stored_bits(len(weight))) * weight[0].numel()
        count += weight.numel()
    return bits / count


def _packed_bits(quant: QuantSpec, tensors: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    """Return the bits of the channels of each weight that has some below 8."""
    packed = {}
    # Sorted: the order of the layers decides where their digits lie in the file.
    for layer, rule in sorted(quant.weights.items()):
        name = f"{layer}.weight"
        bits = rule.stored_bits(len(tensors[name]))
        if min(bits) < WEIGHT_BITS[-1]:
            packed[name] = bits
    return packed
