"""Signed integers of 2 to 8 bits in whole bytes, for the weights of a whole network together.

An integer q of k bits is stored as q + 2^(k-1), cut into digits of 4, 2 and 1 bits as the binary form of k says
(7 = 4 + 2 + 1), the highest first; 8 bits are one digit. Digits of one size lie in one plane, several in a byte, the
first in the lowest bits. So four arrays hold every mixture of widths, and shifts, masks and sums get it back: in torch
here, and in the standard operators of ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

DIGITS = (8, 4, 2, 1)

Bits = Mapping[str, Sequence[int]]
"""The width of each output channel, by layer."""


def digits_of(bits: int) -> tuple[int, ...]:
    """Return the sizes of the digits that an integer of so many bits has, the highest first."""
    return tuple(digit for digit in DIGITS if bits & digit)


def rows_by_width(bits: Bits) -> dict[int, dict[str, Tensor]]:
    """Return for each width, ascending, the output channels that have it, by layer in the order given."""
    found: dict[int, dict[str, Tensor]] = {}
    for name, of_channels in bits.items():
        widths = torch.tensor(of_channels)
        for width in sorted(set(of_channels)):
            found.setdefault(width, {})[name] = (widths == width).nonzero().flatten()
    return {width: found[width] for width in sorted(found)}


def pack(weights: Mapping[str, Tensor], bits: Bits) -> dict[int, Tensor]:
    """Return the planes by the size of their digits, uint8 [bytes], of int8 weights [out, ...].

    The values of a channel of k bits lie within plus and minus 2^(k-1).
    """
    digits: dict[int, list[Tensor]] = {}
    for width, rows in rows_by_width(bits).items():
        stream = torch.cat([weights[name][index].flatten() for name, index in rows.items()])
        values = stream.to(torch.int32) + 2 ** (width - 1)
        for digit in digits_of(width):
            # Below a digit lie those that are smaller.
            digits.setdefault(digit, []).append((values >> (width & (digit - 1))) & (2**digit - 1))
    return {
        digit: _in_bytes(torch.cat(parts), digit)
        for digit, parts in sorted(digits.items(), reverse=True)
    }


def unpack(
    planes: Mapping[int, Tensor], bits: Bits, shapes: Mapping[str, Sequence[int]]
) -> dict[str, Tensor]:
    """Return the int8 weights of these shapes [out, ...]."""
    flat = {digit: _from_bytes(plane, digit) for digit, plane in planes.items()}
    weights = {name: torch.zeros(tuple(shape), dtype=torch.int8) for name, shape in shapes.items()}
    taken = dict.fromkeys(planes, 0)
    for width, rows in rows_by_width(bits).items():
        sizes = [len(index) * weights[name][0].numel() for name, index in rows.items()]
        values = torch.zeros(sum(sizes), dtype=torch.int32)
        for digit in digits_of(width):
            values = (values << digit) | flat[digit][taken[digit] : taken[digit] + len(values)]
            taken[digit] += len(values)
        parts = torch.split((values - 2 ** (width - 1)).to(torch.int8), sizes)
        for (name, index), part in zip(rows.items(), parts, strict=True):
            weights[name][index] = part.reshape(len(index), *weights[name].shape[1:])
    return weights


def _in_bytes(digits: Tensor, size: int) -> Tensor:
    each = 8 // size
    padded = torch.cat([digits, digits.new_zeros(-len(digits) % each)]).reshape(-1, each)
    shifts = size * torch.arange(each, dtype=torch.int32, device=digits.device)
    return (padded << shifts).sum(1).to(torch.uint8)


def _from_bytes(plane: Tensor, size: int) -> Tensor:
    shifts = size * torch.arange(8 // size, dtype=torch.int32)
    digits: Tensor = (plane.to(torch.int32)[:, None] >> shifts) & (2**size - 1)
    return digits.flatten()
