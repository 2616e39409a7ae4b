"""The layers of a network with the ids of their channels: the basis of pruning and surgery."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from fertool.graph.disjoint_sets import DisjointSets

ChannelUses = tuple[tuple[str, bool], ...]
"""Where a channel is used: layers in running order, True for outputs; then parts of splits."""

Segments = dict[ChannelUses, list[int]]
"""Ids of channels by their uses."""
UsesOfIds = defaultdict[int, list[tuple[str, bool]]]
"""The uses found so far of each channel id."""
LayerKind = Literal["dense", "grouped", "norm", "scale", "channel_conv"]


@dataclass(frozen=True, eq=False)
class Layer:
    """A layer with `kernel_elements` weights per channel or per pair of channels.

    `inputs` and `outputs` hold the id of every channel, shapes [in] and [out]. `positions` counts
    the positions at which a weight is multiplied, `per_output` the further parameters of an output
    channel (bias, scale, shift).

    dense: every output channel reads every input channel. grouped: a grouped convolution, depthwise
    ones included; the input and output channels of one of its groups share one id. norm: batch
    norm. scale: one parameter per channel. channel_conv: a convolution along the channels, as in
    ECA (1910.03151), with one kernel for all of them.
    """

    name: str
    kind: LayerKind
    inputs: Tensor
    outputs: Tensor
    kernel_elements: int
    per_output: int
    positions: int

    @property
    def pairs(self) -> int:
        """Pairs of channels that have weights; of layers that are not dense, channels."""
        if self.kind == "dense":
            return len(self.outputs) * len(self.inputs)
        return len(self.outputs)

    @property
    def params(self) -> int:
        """Learned values of the layer."""
        if self.kind == "channel_conv":
            return self.kernel_elements + self.per_output
        return self.kernel_elements * self.pairs + self.per_output * len(self.outputs)


@dataclass(frozen=True, eq=False)
class ChannelGraph:
    """The layers of a network in running order; coupled channels share one id.

    Channels with the same id can only be removed together. `inputs` are the ids of the image's
    channels. `fixed` [ids] marks channels that cannot be removed, `fixed_reasons` [ids] has the
    reasons; `fixing_nodes` has the reasons by the node that causes them. `parts` holds the ids of
    each part into which a node cuts its channels at given indices, `equal_parts` those of each part
    where a node cuts or deals them into parts of equal size.
    """

    layers: tuple[Layer, ...]
    inputs: Tensor
    fixed: Tensor
    parts: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    equal_parts: Mapping[str, tuple[Tensor, ...]] = field(default_factory=dict)
    fixing_nodes: Mapping[str, str] = field(default_factory=dict)
    fixed_reasons: tuple[str, ...] = ()

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one image; equal to `fertool.cost.count` of the module."""
        return sum(layer.kernel_elements * layer.positions * layer.pairs for layer in self.layers)

    @property
    def params(self) -> int:
        """Learned values; equal to `fertool.cost.count` of the module."""
        return sum(layer.params for layer in self.layers)

    @property
    def stored_values(self) -> int:
        """Numbers that a file stores: parameters, and mean and variance of batch norms."""
        total = self.params
        for layer in self.layers:
            if layer.kind == "norm":
                total += 2 * len(layer.outputs)
        return total

    @cached_property
    def by_name(self) -> Mapping[str, Layer]:
        """The layers by their names."""
        return {layer.name: layer for layer in self.layers}

    def segments(self) -> Segments:
        """Return the ids of channels with the same uses, in channel order.

        Channels of one segment are interchangeable, those of two are not: where a network splits
        its channels by index, the output channels of one layer fall into several segments.
        """
        uses: UsesOfIds = defaultdict(list)
        for layer in self.layers:
            _add_use(uses, layer.inputs, (layer.name, False))
            _add_use(uses, layer.outputs, (layer.name, True))
        _add_uses_of_parts(uses, self.parts)
        _add_uses_of_parts(uses, self.equal_parts)

        found: Segments = {}
        for channel_id in range(len(self.fixed)):
            found.setdefault(tuple(uses[channel_id]), []).append(channel_id)
        return found


def _add_uses_of_parts(uses: UsesOfIds, parts: Mapping[str, tuple[Tensor, ...]]) -> None:
    for name, parts_of_node in parts.items():
        for number, ids in enumerate(parts_of_node):
            _add_use(uses, ids, (f"{name}[{number}]", False))


def _add_use(uses: UsesOfIds, ids: Tensor, use: tuple[str, bool]) -> None:
    # Flattened maps and grouped convolutions have an id several times; it is one use.
    for channel_id in dict.fromkeys(ids.tolist()):
        uses[channel_id].append(use)


class ChannelGraphBuilder:
    """Collects layers with provisional ids, and which of these are coupled or fixed."""

    def __init__(self) -> None:
        self.coupled = DisjointSets()
        self.parts: dict[str, tuple[Tensor, ...]] = {}
        self.equal_parts: dict[str, tuple[Tensor, ...]] = {}
        self.fixing_nodes: dict[str, str] = {}
        self._fixed: dict[int, str] = {}
        self._layers: list[Layer] = []

    def new_ids(self, count: int) -> Tensor:
        """Return as many new ids, [count]."""
        first = self.coupled.add(count)
        return torch.arange(first, first + count)

    def fix(self, ids: Tensor, reason: str) -> None:
        """Mark channels as fixed; the first reason given for a channel is kept."""
        for channel_id in torch.unique(ids).tolist():
            self._fixed.setdefault(channel_id, reason)

    def add_layer(
        self,
        name: str,
        kind: LayerKind,
        inputs: Tensor,
        outputs: Tensor,
        *,
        kernel_elements: int = 0,
        per_output: int = 0,
        positions: int = 1,
    ) -> None:
        """Add the next layer in running order."""
        layer = Layer(name, kind, inputs, outputs, kernel_elements, per_output, positions)
        self._layers.append(layer)

    def build(self, inputs: Tensor) -> ChannelGraph:
        """Return the layers with final ids, numbered in the order of their first channel.

        `inputs` are the provisional ids of the image's channels, [C].
        """
        final_ids = self._final_ids()
        reasons = [""] * (int(final_ids.max()) + 1)
        for member, reason in self._fixed.items():
            number = int(final_ids[member])
            reasons[number] = reasons[number] or reason
        fixed = torch.zeros(len(reasons), dtype=torch.bool)
        fixed[final_ids[sorted(self._fixed)]] = True

        layers = []
        for layer in self._layers:
            inputs_of_layer = final_ids[layer.inputs]
            outputs_of_layer = final_ids[layer.outputs]
            layers.append(replace(layer, inputs=inputs_of_layer, outputs=outputs_of_layer))

        return ChannelGraph(
            layers=tuple(layers),
            inputs=final_ids[inputs],
            fixed=fixed,
            parts=_renumber(self.parts, final_ids),
            equal_parts=_renumber(self.equal_parts, final_ids),
            fixing_nodes=self.fixing_nodes,
            fixed_reasons=tuple(reasons),
        )

    def _final_ids(self) -> Tensor:
        """Return the final id of each provisional id."""
        number_of_root: dict[int, int] = {}
        final_ids = []
        for root in self.coupled.roots():
            final_ids.append(number_of_root.setdefault(root, len(number_of_root)))
        return torch.tensor(final_ids)


def _renumber(
    parts: Mapping[str, tuple[Tensor, ...]], final_ids: Tensor
) -> dict[str, tuple[Tensor, ...]]:
    found = {}
    for name, parts_of_node in parts.items():
        found[name] = tuple(final_ids[ids] for ids in parts_of_node)
    return found
