"""Integer weights of fewer than 8 bits, packed in the file and unfolded by the runtime when it loads it.

The planes of `fertool.artifact.bit_packing` are uint8 constants of the graph. A few standard
operators turn them into int8 again, once for the whole network; runtimes fold all of that into
constants before they look for integer operators, so that every convolution computes as if its
weight had been stored plainly.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor
from onnx.numpy_helper import from_array

from fertool.artifact import bit_packing
from fertool.export.compact import Array, constants

MIN_OPSET = 18
"""The first operator set with BitwiseAnd."""
_SORTING_BYTES = 150
"""About what it takes in the graph to put the channels of a stack in order."""
_WIDTHS, _BITS_OF_A_WIDTH, _MIDDLE_WIDTH = "widths", 3, 5
"""The widths themselves, 2 to 8, are stored like weights, as what they differ from 5."""


def weights_packed(
    model: ModelProto, on_note: Callable[[str], None] = lambda note: None
) -> ModelProto:
    """Return the same graph with its int8 weights [out, ...] in as few bits as each channel's integers need.

    Weights of which none would get smaller stay as they are, and so does the whole graph below opset 18, which
    `on_note` hears.
    """
    found = {name: onnx.numpy_helper.to_array(tensor) for name, tensor in constants(model)}
    read = dict.fromkeys(
        node.input[0] for node in model.graph.node if node.op_type == "DequantizeLinear"
    )
    weights = {
        n: found[n] for n in read if n in found and found[n].dtype == np.int8 and found[n].ndim > 1
    }
    stacks = [stack for stack in _stacks(weights) if min(stack.bits) < 8]
    packed = {name for stack in stacks for name in stack.layers}
    if not packed:
        return model
    if min(entry.version for entry in model.opset_import if entry.domain == "") < MIN_OPSET:
        on_note(f"weights stay at 8 bits: packing them needs --opset {MIN_OPSET} or later")
        return model
    result = onnx.ModelProto()
    result.CopyFrom(model)
    del result.graph.node[:], result.graph.initializer[:]
    unfolding = _Unfolding(stacks)
    result.graph.initializer.extend(
        tensor for tensor in model.graph.initializer if tensor.name not in packed
    )
    result.graph.node.extend(unfolding.nodes)
    result.graph.initializer.extend(unfolding.constants)
    result.graph.node.extend(node for node in model.graph.node if packed.isdisjoint(node.output))
    return result


@dataclass(frozen=True)
class _Stack:
    """The weights of all layers whose channels have one shape, as one: int8 [channels of all, ...].

    `layers` has the channels of each layer, `bits` the width of each channel.
    """

    layers: Mapping[str, int]
    weight: Array
    bits: tuple[int, ...]

    @property
    def name(self) -> str:
        return next(iter(self.layers))

    @property
    def mixed(self) -> bool:
        return len(set(self.bits)) > 1


def _stacks(weights: Mapping[str, Array]) -> list[_Stack]:
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, weight in weights.items():
        by_shape.setdefault(weight.shape[1:], []).append(name)
    stacks = []
    for names in by_shape.values():
        stack = np.concatenate([weights[name] for name in names])
        stacks.append(_Stack({name: len(weights[name]) for name in names}, stack, _widths(stack)))
    return stacks


def _widths(stack: Array) -> tuple[int, ...]:
    """Return the bits of each channel: as few as hold it, or as many for all where telling them apart costs more."""
    rows = stack.reshape(len(stack), -1).astype(np.int32)
    reach = np.maximum(rows.max(1) + 1, -rows.min(1)).clip(min=2)
    needed = np.ceil(np.log2(reach)).astype(int) + 1
    saved = (needed.max() - needed).sum() * rows.shape[1] / 8
    mixed = saved > _SORTING_BYTES + _BITS_OF_A_WIDTH * len(rows) / 8
    return tuple((needed if mixed else np.full_like(needed, needed.max())).tolist())


class _Unfolding:
    """The nodes and constants that make the weights again."""

    def __init__(self, stacks: Sequence[_Stack]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._fresh = (f"unfold.{number}" for number in itertools.count())
        sorted_out = [stack for stack in stacks if stack.mixed]
        streams = {stack.name: (stack.weight, stack.bits) for stack in stacks}
        if sorted_out:
            widths = np.array([[bits for stack in sorted_out for bits in stack.bits]])
            streams[_WIDTHS] = ((widths - _MIDDLE_WIDTH).astype(np.int8), (_BITS_OF_A_WIDTH,))
        bits = {name: of_channels for name, (_, of_channels) in streams.items()}
        packed = bit_packing.pack(
            {name: torch.from_numpy(values) for name, (values, _) in streams.items()}, bits
        )
        rows = bit_packing.channels_by_bits(bits)
        sizes = {
            k: [len(index) * streams[name][0][0].size for name, index in of.items()]
            for k, of in rows.items()
        }
        digits = self._digits(packed, {width: sum(counts) for width, counts in sizes.items()})
        pieces: dict[str, list[str]] = {name: [] for name in streams}
        for width, of in rows.items():
            values = self._signed(
                [digits[digit, width] for digit in bit_packing.digit_sizes(width)], width
            )
            for name, piece in zip(of, self._split(values, sizes[width]), strict=True):
                pieces[name].append(piece)
        places = self._places(sorted_out, pieces.pop(_WIDTHS)[0]) if sorted_out else {}
        for stack in stacks:
            self._layers(stack, pieces[stack.name], places.get(stack.name))

    def _digits(
        self, packed: Mapping[int, torch.Tensor], counts: Mapping[int, int]
    ) -> dict[tuple[int, int], str]:
        """Unfold every plane; returns the values of the digits of each size that the weights of each width have."""
        found = {}
        for digit, plane in packed.items():
            each = 8 // digit
            bytes_ = self._constant(plane.numpy().reshape(-1, 1), name=f"bits{digit}")
            columns = [self._digit_at(bytes_, digit, place) for place in range(0, 8, digit)]
            table = columns[0] if each == 1 else self._node("Concat", *columns, axis=1)
            flat = self._node("Reshape", table, self._numbers([-1]))
            widths = [width for width in counts if digit in bit_packing.digit_sizes(width)]
            rest = len(plane) * each - sum(counts[width] for width in widths)
            parts = self._split(
                flat, [*(counts[width] for width in widths), *([rest] if rest else [])]
            )
            found.update({(digit, width): part for width, part in zip(widths, parts, strict=False)})
        return found

    def _digit_at(self, values: str, digit: int, place: int) -> str:
        """Take the digit that begins at bit `place` out of every byte.

        The mask comes first, because OpenVINO rounds what a shift to the right drops; each shift has one operand,
        because OpenCV knows no other.
        """
        if digit == 8:
            return values
        masked = self._node("BitwiseAnd", values, self._bytes([(2**digit - 1) << place]))
        return (
            self._node("BitShift", masked, self._bytes([place]), direction="RIGHT")
            if place
            else masked
        )

    def _signed(self, digits: Sequence[str], width: int) -> str:
        """Put the digits of integers together, and take off what made them positive."""
        value = digits[0]
        for name, size in zip(digits[1:], bit_packing.digit_sizes(width)[1:], strict=True):
            value = self._node("BitShift", value, self._bytes([size]), direction="LEFT")
            value = self._node("BitwiseOr", value, name)
        # Runtimes have no int8 kernel for Sub.
        value = self._node("Cast", value, to=TensorProto.INT32)
        value = self._node("Sub", value, self._constant(np.array([2 ** (width - 1)], np.int32)))
        return self._node("Cast", value, to=TensorProto.INT8)

    def _places(self, stacks: Sequence[_Stack], widths: str) -> dict[str, str]:
        """Find, by stack, where each channel lies among those that are sorted by width."""
        places = {}
        widths = self._node("Cast", widths, to=TensorProto.INT32)
        for stack, own in zip(
            stacks, self._split(widths, [len(stack.bits) for stack in stacks]), strict=True
        ):
            # What sorts a permutation is its inverse.
            order = self._sorting(self._distinct(own, len(stack.bits)), len(stack.bits))
            places[stack.name] = self._sorting(order, len(stack.bits))
        return places

    def _distinct(self, values: str, count: int) -> str:
        """Make keys of int32 values [count] that sort alike, equal ones in their order.

        ONNX demands that order of TopK itself, but OpenVINO does not keep it.
        """
        scaled = self._node("Mul", values, self._constant(np.array([count], np.int32)))
        ends = (self._constant(np.array(end, np.int32)) for end in (0, count, 1))
        return self._node("Add", scaled, self._node("Range", *ends))

    def _sorting(self, values: str, count: int) -> str:
        names = [next(self._fresh), next(self._fresh)]
        self.nodes.append(make_node("TopK", [values, self._numbers([count])], names, largest=0))
        return names[1]

    def _layers(self, stack: _Stack, parts: list[str], places: str | None) -> None:
        """Make the weights of the layers of a stack, of its channels by width."""
        flat = parts[0] if len(parts) == 1 else self._node("Concat", *parts, axis=0)
        whole = self._node("Reshape", flat, self._numbers([-1, *stack.weight.shape[1:]]))
        if places:
            whole = self._node("Gather", whole, places)
        self._split(whole, [*stack.layers.values()], [*stack.layers])

    def _split(self, value: str, sizes: Sequence[int], names: Sequence[str] = ()) -> list[str]:
        if len(sizes) == 1 and not names:
            return [value]
        names = names or [next(self._fresh) for _ in sizes]
        self.nodes.append(make_node("Split", [value, self._numbers(sizes)], names, axis=0))
        return list(names)

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        output = next(self._fresh)
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
