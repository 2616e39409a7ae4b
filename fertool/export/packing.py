"""Integer weights of fewer than 8 bits, packed in the file and unfolded by the runtime when it loads it.

The planes of `fertool.artifact.planes` are uint8 constants of the graph. A few standard operators turn them into int8
again, once for the whole network; runtimes fold all of that into constants before they look for integer operators, so
that every convolution computes as if its weight had been stored plainly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor
from onnx.numpy_helper import from_array

from fertool.artifact import planes
from fertool.export.compact import Array, constants
from fertool.spec import WIDTHS

MIN_OPSET = 18
"""The first operator set with BitwiseAnd."""
_PIECE_BYTES = 12
"""About what the channels of one width of a layer cost in the graph: a size, and a name twice."""


def weights_packed(model: ModelProto, on_note: Callable[[str], None] = lambda note: None) -> ModelProto:
    """Return the same graph with its int8 weights [out, ...] in as few bits as each channel's integers need.

    Weights of which none would get smaller stay as they are, and so does the whole graph below opset 18, which
    `on_note` hears.
    """
    found = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in constants(model)}
    read = dict.fromkeys(node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear")
    weights = {n: found[n] for n in read if n in found and found[n].dtype == np.int8 and found[n].ndim > 1}
    bits = {name: _widths(weight) for name, weight in weights.items()}
    bits = {name: widths for name, widths in bits.items() if min(widths) < 8}
    if not bits:
        return model
    if min(entry.version for entry in model.opset_import if entry.domain == "") < MIN_OPSET:
        on_note(f"weights stay at 8 bits: packing them needs --opset {MIN_OPSET} or later")
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:]
    unfolding = _Unfolding({name: weights[name] for name in bits}, bits)
    result.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name not in bits)
    result.graph.node.extend(unfolding.nodes)
    result.graph.initializer.extend(unfolding.constants)
    result.graph.node.extend(node for node in model.graph.node if bits.keys().isdisjoint(node.output))
    return result


def _widths(weight: Array) -> tuple[int, ...]:
    """Return the bits of each output channel: as few as hold it, but not another width for a few bytes' sake."""
    rows = weight.reshape(len(weight), -1).astype(np.int32)
    reach = np.maximum(rows.max(1) + 1, -rows.min(1)).clip(min=2)
    needed = np.ceil(np.log2(reach)).astype(int) + 1
    subsets = (s for n in range(1, len(WIDTHS) + 1) for s in itertools.combinations(WIDTHS, n))
    chosen = [np.array(s)[np.searchsorted(s, needed)] for s in subsets if s[-1] >= needed.max()]
    return tuple(min(chosen, key=lambda widths: _cost(widths, rows.shape[1])).tolist())


def _cost(widths: Array, fan_in: int) -> float:
    """Return about how many bytes a layer takes with these widths: its bits, and what puts the channels in order."""
    pieces = len(set(widths.tolist()))
    order = sum(1 if channel < 128 else 2 for channel in range(len(widths))) if pieces > 1 else 0
    return float(widths.sum()) * fan_in / 8 + _PIECE_BYTES * pieces + order


class _Unfolding:
    """The nodes and constants that make the weights again."""

    def __init__(self, weights: Mapping[str, Array], bits: planes.Bits) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._fresh = (f"unfold.{number}" for number in itertools.count())
        packed = planes.pack({name: torch.from_numpy(weight.copy()) for name, weight in weights.items()}, bits)
        rows = planes.rows_by_width(bits)
        sizes = {k: [len(index) * weights[name][0].size for name, index in of.items()] for k, of in rows.items()}
        digits = self._digits(packed, {width: sum(counts) for width, counts in sizes.items()})
        pieces: dict[str, list[str]] = {name: [] for name in weights}
        for width, layers in rows.items():
            values = self._signed([digits[digit, width] for digit in planes.digits_of(width)], width)
            for name, piece in zip(layers, self._split(values, sizes[width]), strict=True):
                pieces[name].append(piece)
        for name, parts in pieces.items():
            order = torch.cat([rows[width][name] for width in rows if name in rows[width]])
            self._weight(name, parts, weights[name].shape, order.argsort().tolist())

    def _digits(self, packed: Mapping[int, torch.Tensor], counts: Mapping[int, int]) -> dict[tuple[int, int], str]:
        """Unfold every plane; returns the values of the digits of each size that the weights of each width have."""
        found = {}
        for digit, plane in packed.items():
            each = 8 // digit
            values = self._constant(plane.numpy().reshape(-1, 1), name=f"bits{digit}")
            if each > 1:
                values = self._node("BitShift", values, self._bytes(digit * i for i in range(each)), direction="RIGHT")
                values = self._node("BitwiseAnd", values, self._bytes([2**digit - 1]))
            flat = self._node("Reshape", values, self._numbers([-1]))
            widths = [width for width in counts if digit in planes.digits_of(width)]
            rest = len(plane) * each - sum(counts[width] for width in widths)
            parts = self._split(flat, [*(counts[width] for width in widths), *([rest] if rest else [])])
            found.update({(digit, width): part for width, part in zip(widths, parts, strict=False)})
        return found

    def _signed(self, digits: Sequence[str], width: int) -> str:
        """Put the digits of integers together, and take off what made them positive."""
        value = digits[0]
        for name, size in zip(digits[1:], planes.digits_of(width)[1:], strict=True):
            value = self._node("BitShift", value, self._bytes([size]), direction="LEFT")
            value = self._node("BitwiseOr", value, name)
        # Runtimes have no int8 kernel for Sub.
        value = self._node("Cast", value, to=TensorProto.INT32)
        value = self._node("Sub", value, self._constant(np.array([2 ** (width - 1)], np.int32)))
        return self._node("Cast", value, to=TensorProto.INT8)

    def _weight(self, name: str, parts: list[str], shape: Sequence[int], order: list[int]) -> None:
        """Make one layer's weight of its channels by width; `order` finds each channel among them."""
        flat = parts[0] if len(parts) == 1 else self._node("Concat", *parts, axis=0)
        if order == list(range(len(order))):
            self._node("Reshape", flat, self._numbers(shape), output=name)
        else:
            self._node("Gather", self._node("Reshape", flat, self._numbers(shape)), self._numbers(order), output=name)

    def _split(self, value: str, sizes: Sequence[int]) -> list[str]:
        if len(sizes) == 1:
            return [value]
        names = [next(self._fresh) for _ in sizes]
        self.nodes.append(make_node("Split", [value, self._numbers(sizes)], names))
        return names

    def _node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or next(self._fresh)
        self.nodes.append(make_node(kind, list(inputs), [output], **attributes))
        return output

    def _constant(self, values: Array, name: str = "") -> str:
        name = name or next(self._fresh)
        self.constants.append(from_array(values, name))
        return name

    def _bytes(self, values: Iterator[int] | Sequence[int]) -> str:
        return self._constant(np.array(list(values), np.uint8))

    def _numbers(self, values: Sequence[int]) -> str:
        """In this form a small number takes a byte or two, as raw data eight."""
        name = next(self._fresh)
        self.constants.append(make_tensor(name, TensorProto.INT64, [len(values)], list(values)))
        return name
