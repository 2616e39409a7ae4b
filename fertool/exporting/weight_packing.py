"""Integer weights of fewer than 8 bits, packed in the file and unpacked when a runtime loads it.

The planes of `fertool.artifact.bit_packing` are uint8 constants of the graph. A few standard
operators turn them into int8 again, once for the whole network; runtimes fold all of that into
constants before they look for integer operators, so that every convolution computes as if its
weight had been stored plainly.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from onnx import ModelProto, NodeProto, TensorProto
from onnx.helper import make_node, make_tensor
from onnx.numpy_helper import from_array

from fertool.artifact import bit_packing
from fertool.config.exporting import PACKING_OPSET
from fertool.exporting.graph_parts import Array, constant_arrays, copy_with_nodes, without_constants

# About what the operators take in the file that put the channels of one stack in order.
_ORDERING_BYTES = 150
# The bits of channels, 2 to 8, are stored like weights: as 3-bit differences from 5.
_BITS_STREAM, _BITS_OF_BITS, _MIDDLE_BITS = "bits of channels", 3, 5


def pack_weights(
    model: ModelProto, on_note: Callable[[str], None] = lambda note: None
) -> ModelProto:
    """Return the same graph with int8 weights [out, ...] in as few bits as each channel needs.

    Weights of which none would get smaller stay as they are, and so does the whole graph below
    opset 18, which is reported to `on_note`.
    """
    stacks = [stack for stack in _stack_weights(model) if min(stack.bits) < 8]
    if not stacks:
        return model
    opset = min(entry.version for entry in model.opset_import if entry.domain == "")
    if opset < PACKING_OPSET:
        on_note(f"weights stay at 8 bits: packing them needs opset {PACKING_OPSET} or later")
        return model

    unpacker = _Unpacker(stacks)
    packed: set[str] = set()
    for stack in stacks:
        packed.update(stack.channels)
    nodes, tensors = without_constants(model.graph.node, model.graph.initializer, packed)
    return copy_with_nodes(model, [*unpacker.nodes, *nodes], [*tensors, *unpacker.constants])


def _integer_weights(model: ModelProto) -> dict[str, Array]:
    """Return the int8 weights [out, ...] by name, in the order in which the graph reads them."""
    arrays = constant_arrays(model)
    weights: dict[str, Array] = {}
    for node in model.graph.node:
        # A Cast reads those of layers that compute with floats.
        if node.op_type not in ("DequantizeLinear", "Cast"):
            continue
        array = arrays.get(node.input[0])
        if array is not None and array.dtype == np.int8 and array.ndim > 1:
            weights[node.input[0]] = array
    return weights


@dataclass(frozen=True)
class _Stack:
    """The weights of all layers whose channels have one shape, as one: int8 [channels of all, ...].

    `channels` has the number of channels of each layer, `bits` those of each channel.
    """

    channels: Mapping[str, int]
    weight: Array
    bits: tuple[int, ...]

    @property
    def name(self) -> str:
        """The name of the first layer."""
        return next(iter(self.channels))

    @property
    def mixed(self) -> bool:
        """Whether the channels have different numbers of bits."""
        return len(set(self.bits)) > 1


def _stack_weights(model: ModelProto) -> list[_Stack]:
    weights = _integer_weights(model)
    names_by_shape: dict[tuple[int, ...], list[str]] = {}
    for name, weight in weights.items():
        names_by_shape.setdefault(weight.shape[1:], []).append(name)

    stacks = []
    for names in names_by_shape.values():
        of_shape = {name: weights[name] for name in names}
        stacked = np.concatenate(list(of_shape.values()))
        channels = {name: len(weight) for name, weight in of_shape.items()}
        stacks.append(_Stack(channels, stacked, bits=_needed_bits(stacked)))
    return stacks


def _needed_bits(stacked: Array) -> tuple[int, ...]:
    """Return the bits of each channel: as few as hold it, or the same for all if that is less."""
    channels = stacked.reshape(len(stacked), -1).astype(np.int32)
    # k bits hold -2^(k-1) to 2^(k-1) - 1.
    magnitude = np.maximum(channels.max(1) + 1, -channels.min(1)).clip(min=2)
    needed = np.ceil(np.log2(magnitude)).astype(int) + 1
    saved_bytes = (needed.max() - needed).sum() * channels.shape[1] / 8
    if saved_bytes <= _ORDERING_BYTES + _BITS_OF_BITS * len(channels) / 8:
        needed = np.full_like(needed, needed.max())
    return tuple(needed.tolist())


@dataclass(frozen=True)
class _Stream:
    """Integers [channels, ...] that are packed together, and the bits of each channel."""

    values: Array
    bits: tuple[int, ...]


class _Unpacker:
    """Nodes and constants that compute the int8 weights of the layers from the packed planes."""

    def __init__(self, stacks: Sequence[_Stack]) -> None:
        self.nodes: list[NodeProto] = []
        self.constants: list[TensorProto] = []
        self._name_count = 0

        mixed = [stack for stack in stacks if stack.mixed]
        pieces = self._unpack_streams(_make_streams(stacks, mixed))
        positions: dict[str, str] = {}
        if mixed:
            (bits,) = pieces[_BITS_STREAM]
            positions = self._channel_positions(mixed, bits)
        for stack in stacks:
            self._make_layers(stack, pieces[stack.name], positions.get(stack.name))

    def _unpack_streams(self, streams: Mapping[str, _Stream]) -> dict[str, list[str]]:
        """Return for each stream its values, flat: one piece for each number of bits, ascending."""
        weights = {name: torch.from_numpy(stream.values) for name, stream in streams.items()}
        packed = bit_packing.pack(weights, _bits_of_channels(streams))
        sizes_by_bits = _piece_sizes(streams)
        counts = {bits: sum(sizes.values()) for bits, sizes in sizes_by_bits.items()}
        digits = self._unpack_planes(packed, counts)

        pieces = defaultdict(list)
        for bits, sizes in sizes_by_bits.items():
            values = self._join_digits(digits, bits)
            parts = self._split(values, list(sizes.values()))
            for name, part in zip(sizes, parts, strict=True):
                pieces[name].append(part)
        return pieces

    def _unpack_planes(
        self, packed: Mapping[int, torch.Tensor], counts: Mapping[int, int]
    ) -> dict[tuple[int, int], str]:
        """Return the values of the digits by (bits of a digit, bits of a weight).

        `counts` has the number of weights of each number of bits.
        """
        found = {}
        for digit, plane in packed.items():
            digits_per_byte = 8 // digit
            packed_bytes = self._constant(plane.numpy().reshape(-1, 1), name=f"bits{digit}")
            columns = [self._digit_at(packed_bytes, digit, first) for first in range(0, 8, digit)]
            flat = self._node("Reshape", self._concatenate(columns, axis=1), self._sizes([-1]))

            sizes: dict[int, int] = {}
            for bits, count in counts.items():
                if digit in bit_packing.digit_sizes(bits):
                    sizes[bits] = count
            padding = len(plane) * digits_per_byte - sum(sizes.values())
            # The padding that fills the last byte is a part that belongs to no weight.
            unused = [padding] if padding else []
            parts = self._split(flat, [*sizes.values(), *unused])
            for bits, part in zip(sizes, parts, strict=False):
                found[digit, bits] = part
        return found

    def _concatenate(self, values: Sequence[str], axis: int) -> str:
        """Join values along an axis; a single one needs no node."""
        if len(values) == 1:
            return values[0]
        return self._node("Concat", *values, axis=axis)

    def _digit_at(self, values: str, digit: int, first: int) -> str:
        """Extract the digit of `digit` bits that begins at bit `first` of every byte."""
        if digit == 8:
            return values
        # The mask comes first, because OpenVINO rounds what a shift to the right drops.
        masked = self._node("BitwiseAnd", values, self._byte((2**digit - 1) << first))
        if first == 0:
            return masked
        # The shift has one operand of one element, because OpenCV supports no other.
        return self._node("BitShift", masked, self._byte(first), direction="RIGHT")

    def _join_digits(self, digits: Mapping[tuple[int, int], str], bits: int) -> str:
        """Join the digits of weights of so many bits, and subtract what made them positive."""
        first, *others = bit_packing.digit_sizes(bits)
        value = digits[first, bits]
        for digit in others:
            value = self._node("BitShift", value, self._byte(digit), direction="LEFT")
            value = self._node("BitwiseOr", value, digits[digit, bits])
        # In int32, because runtimes have no int8 kernel for Sub.
        value = self._node("Cast", value, to=TensorProto.INT32)
        value = self._node("Sub", value, self._constant(np.array([2 ** (bits - 1)], np.int32)))
        return self._node("Cast", value, to=TensorProto.INT8)

    def _channel_positions(self, stacks: Sequence[_Stack], bits: str) -> dict[str, str]:
        """Compute by stack where each channel lies among those that are sorted by their bits."""
        positions = {}
        bits = self._node("Cast", bits, to=TensorProto.INT32)
        bits_of_stacks = self._split(bits, [len(stack.bits) for stack in stacks])
        for stack, bits_of_stack in zip(stacks, bits_of_stacks, strict=True):
            count = len(stack.bits)
            order = self._sort(self._distinct_keys(bits_of_stack, count), count)
            # The permutation that sorts a permutation is its inverse.
            positions[stack.name] = self._sort(order, count)
        return positions

    def _distinct_keys(self, values: str, count: int) -> str:
        """Compute keys of int32 values [count] that sort like these, equal ones by position."""
        # ONNX demands a stable TopK, but OpenVINO's is not.
        scaled = self._node("Mul", values, self._constant(np.array([count], np.int32)))
        start = self._constant(np.array(0, np.int32))
        limit = self._constant(np.array(count, np.int32))
        step = self._constant(np.array(1, np.int32))
        return self._node("Add", scaled, self._node("Range", start, limit, step))

    def _sort(self, values: str, count: int) -> str:
        """Compute the positions of values [count] in ascending order."""
        outputs = [self._fresh_name(), self._fresh_name()]
        self.nodes.append(make_node("TopK", [values, self._sizes([count])], outputs, largest=0))
        return outputs[1]

    def _make_layers(self, stack: _Stack, pieces: Sequence[str], positions: str | None) -> None:
        """Compute the weights of the layers of a stack from its channels, sorted by their bits."""
        flat = self._concatenate(pieces, axis=0)
        shape = self._sizes([-1, *stack.weight.shape[1:]])
        stacked = self._node("Reshape", flat, shape)
        if positions:
            stacked = self._node("Gather", stacked, positions)
        self._split(stacked, list(stack.channels.values()), names=list(stack.channels))

    def _split(self, value: str, sizes: Sequence[int], names: Sequence[str] = ()) -> list[str]:
        if len(sizes) == 1 and not names:
            return [value]
        outputs = list(names)
        while len(outputs) < len(sizes):
            outputs.append(self._fresh_name())
        self.nodes.append(make_node("Split", [value, self._sizes(sizes)], outputs, axis=0))
        return outputs

    def _fresh_name(self) -> str:
        self._name_count += 1
        return f"unfold.{self._name_count}"

    def _node(self, op_type: str, *inputs: str, **attributes: Any) -> str:
        output = self._fresh_name()
        self.nodes.append(make_node(op_type, list(inputs), [output], **attributes))
        return output

    def _constant(self, values: Array, name: str = "") -> str:
        name = name or self._fresh_name()
        self.constants.append(from_array(values, name))
        return name

    def _byte(self, value: int) -> str:
        return self._constant(np.array([value], np.uint8))

    def _sizes(self, values: Sequence[int]) -> str:
        name = self._fresh_name()
        # `make_tensor` stores a small number as a varint of one or two bytes, raw data as eight.
        self.constants.append(make_tensor(name, TensorProto.INT64, [len(values)], list(values)))
        return name


def _make_streams(stacks: Sequence[_Stack], mixed: Sequence[_Stack]) -> dict[str, _Stream]:
    """Return the stacks as streams, and the bits of the channels of `mixed` as one more."""
    streams = {stack.name: _Stream(stack.weight, stack.bits) for stack in stacks}
    if mixed:
        bits = np.concatenate([stack.bits for stack in mixed])
        differences = (bits - _MIDDLE_BITS).astype(np.int8)
        streams[_BITS_STREAM] = _Stream(differences.reshape(1, -1), (_BITS_OF_BITS,))
    return streams


def _bits_of_channels(streams: Mapping[str, _Stream]) -> dict[str, tuple[int, ...]]:
    return {name: stream.bits for name, stream in streams.items()}


def _piece_sizes(streams: Mapping[str, _Stream]) -> dict[int, dict[str, int]]:
    """Return for each number of bits, ascending, how many values of each stream have it."""
    sizes: dict[int, dict[str, int]] = {}
    for bits, channels in bit_packing.channels_by_bits(_bits_of_channels(streams)).items():
        sizes[bits] = {}
        for name, index in channels.items():
            channel_size = streams[name].values[0].size
            sizes[bits][name] = len(index) * channel_size
    return sizes
