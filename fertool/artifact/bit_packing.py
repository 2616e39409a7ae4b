"""Pack signed integers of 2 to 8 bits into whole bytes, the weights of a whole network together.

An integer q of k bits is stored as q + 2^(k-1), cut into digits of 4, 2 and 1 bits as the binary
form of k has them (7 = 4 + 2 + 1), the highest first; 8 bits are one digit. Digits of one size lie
in one plane, several in a byte, the first in the lowest bits. So four arrays hold every mixture of
bits, and shifts, masks and sums unpack it: in torch here, and in the standard operators of ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DIGITS = (8, 4, 2, 1)

Bits = Mapping[str, Sequence[int]]
"""The bits of each output channel, by layer."""


def digit_sizes(bits: int) -> tuple[int, ...]:
    """Return the sizes in bits of the digits of an integer of `bits`, the highest first."""
    return tuple(digit for digit in DIGITS if bits & digit)


def channels_by_bits(bits: Bits) -> dict[int, dict[str, Tensor]]:
    """Return for each number of bits, ascending, the output channels int64 that have it, by layer.

    Layers keep their order.
    """
    found: dict[int, dict[str, Tensor]] = {}
    for name, of_channels in bits.items():
        channel_bits = torch.tensor(of_channels)
        for k in sorted(set(of_channels)):
            found.setdefault(k, {})[name] = (channel_bits == k).nonzero().flatten()
    return {k: found[k] for k in sorted(found)}


def pack(weights: Mapping[str, Tensor], bits: Bits) -> dict[int, Tensor]:
    """Return the planes by the size of their digits, uint8 [bytes], of int8 weights [out, ...].

    The values of a channel of k bits lie within plus and minus 2^(k-1).
    """
    # Channels of the same bits lie together, whatever their layer, so that an exported file unpacks
    # them with a few operators for each number of bits.
    digits: dict[int, list[Tensor]] = {}
    for k, channels in channels_by_bits(bits).items():
        stream = torch.cat([weights[name][index].flatten() for name, index in channels.items()])
        values = stream.to(torch.int32) + 2 ** (k - 1)
        for digit in digit_sizes(k):
            # A digit lies above all smaller ones that k has.
            shift = k & (digit - 1)
            mask = 2**digit - 1
            digits.setdefault(digit, []).append((values >> shift) & mask)

    # The largest digits first, as in `digit_sizes`.
    planes: dict[int, Tensor] = {}
    for digit in sorted(digits, reverse=True):
        planes[digit] = _digits_to_bytes(torch.cat(digits[digit]), digit)
    return planes


def unpack(
    planes: Mapping[int, Tensor], bits: Bits, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return the int8 weights of these shapes [out, ...]; the inverse of `pack`."""
    digits = {digit: _bytes_to_digits(plane, digit) for digit, plane in planes.items()}
    position = dict.fromkeys(planes, 0)
    weights = {name: torch.zeros(tuple(shape), dtype=torch.int8) for name, shape in shapes.items()}
    for k, channels in channels_by_bits(bits).items():
        sizes = [len(index) * weights[name][0].numel() for name, index in channels.items()]
        values = torch.zeros(sum(sizes), dtype=torch.int32)
        for digit in digit_sizes(k):
            start, end = position[digit], position[digit] + len(values)
            values = (values << digit) | digits[digit][start:end]
            position[digit] = end

        # In the order in which `pack` joined the layers.
        signed = (values - 2 ** (k - 1)).to(torch.int8)
        for (name, index), part in zip(channels.items(), torch.split(signed, sizes), strict=True):
            weights[name][index] = part.reshape(len(index), *weights[name].shape[1:])
    return weights


def _digits_to_bytes(digits: Tensor, size: int) -> Tensor:
    """Return digits of `size` bits as uint8, the first of a byte in the lowest bits."""
    per_byte = 8 // size
    padding = digits.new_zeros(-len(digits) % per_byte)
    rows = torch.cat([digits, padding]).reshape(-1, per_byte)
    shifts = size * torch.arange(per_byte, dtype=torch.int32, device=digits.device)
    return (rows << shifts).sum(1).to(torch.uint8)


def _bytes_to_digits(plane: Tensor, size: int) -> Tensor:
    """Return the digits of `size` bits, int32, with the padding of the last byte."""
    shifts = size * torch.arange(8 // size, dtype=torch.int32)
    digits: Tensor = (plane.to(torch.int32)[:, None] >> shifts) & (2**size - 1)
    return digits.flatten()
