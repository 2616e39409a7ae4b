"""How many bits each layer's activations get, from what rounding them does to the outputs.

The candidate errors are those of rounding the activations at one quantizer to k bits; what they
cost is the divergence of `output_divergence`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from fertool.graph.network import Network
from fertool.models.quantized import dequantize, insert_at_quantizer_points, quantize
from fertool.models.quantizer_points import QuantizerPlan, QuantizerPoint
from fertool.quant.knapsack import KnapsackItems, least_loss, spend_remaining_bits
from fertool.quant.observers import QParams
from fertool.quant.output_divergence import ErrorProbe, mean_divergences
from fertool.spec import InputSpec

ACTIVATION_BITS = (4, 5, 6, 7, 8)


class _RoundingProbe(nn.Module, ErrorProbe):
    """Records what rounding by each of some QParams would add: `changes` float64 [bits, N].

    `values` counts the values of one image.
    """

    def __init__(self, qparams: Sequence[QParams]) -> None:
        nn.Module.__init__(self)
        ErrorProbe.__init__(self)
        self.qparams = qparams
        self.values = 0

    def reset(self) -> None:
        """Start a batch."""
        super().reset()
        self.values = 0

    def forward(self, values: Tensor) -> Tensor:
        """Return the values unchanged."""
        if values.requires_grad:
            # A copy, since an in-place activation may overwrite the values.
            seen = values.detach().clone()
            self.values += seen[0].numel()
            values.register_hook(partial(self._record, seen))  # type: ignore[no-untyped-call]
        return values

    def _record(self, seen: Tensor, gradient: Tensor) -> None:
        by_bits = []
        for qparams, bits in zip(self.qparams, ACTIVATION_BITS, strict=True):
            products = gradient * _rounding_error(seen, qparams, bits)
            by_bits.append(products.flatten(1).sum(1))
        # The results that share a quantizer are rounded together.
        self.add(torch.stack(by_bits))


def _rounding_error(values: Tensor, qparams: QParams, bits: int) -> Tensor:
    """Return what rounding to so many bits adds to the values."""
    scale = torch.tensor(qparams.scale, device=values.device)
    integers = quantize(values, scale, qparams.zero_point, 0, 2**bits - 1)
    return dequantize(integers, scale, qparams.zero_point) - values


def rounding_losses(
    graph_module: Network,
    plan: QuantizerPlan,
    qparams: Mapping[str, Sequence[QParams]],
    images: Tensor,
    input: InputSpec,
    *,
    batch_size: int = 64,
    seed: int = 0,
    tick: Callable[[], None] = lambda: None,
) -> KnapsackItems:
    """Return the loss, in nats, of each quantizer of a folded float network, and its values.

    The losses are at each of ACTIVATION_BITS, and so are the `qparams` of each quantizer. `images`
    are uint8 [N, C, S, S]; `tick` is called after each batch.
    """
    probes = {point.name: _RoundingProbe(qparams[point.name]) for point in plan.points}
    watched = insert_at_quantizer_points(
        graph_module, _where_values_change(graph_module, plan), probes
    )
    found = mean_divergences(
        watched, probes, images, input, batch_size=batch_size, seed=seed, tick=tick
    )
    unreached = torch.zeros(len(ACTIVATION_BITS), dtype=torch.float64)
    losses = [found.get(name, unreached) for name in probes]

    # More bits never hurt, whatever the search for ranges found.
    mean = torch.stack(losses).cummin(1).values
    values = torch.tensor([probe.values for probe in probes.values()])
    return KnapsackItems(mean, values, ACTIVATION_BITS, ACTIVATION_BITS[-1])


def _where_values_change(graph_module: Network, plan: QuantizerPlan) -> QuantizerPlan:
    """Leave out results that only move values which the same quantizer has rounded already."""
    inputs = {node.name: set(node.inputs) for node in graph_module.graph.nodes}
    changed = [_where_point_changes(inputs, point) for point in plan.points]
    return replace(plan, points=tuple(changed))


def _where_point_changes(inputs: Mapping[str, set[str]], point: QuantizerPoint) -> QuantizerPoint:
    nodes = []
    for name in point.nodes:
        # The images, which no node makes, have not been rounded before.
        if name not in inputs or not inputs[name].issubset(point.nodes):
            nodes.append(name)
    return replace(point, nodes=tuple(nodes))


def allocate_activation_bits(items: KnapsackItems, average_bits: float) -> list[int]:
    """Return the bits of each quantizer that lose least in all.

    Their mean over the values is `average_bits` or less.
    """
    budget = items.budget(average_bits)
    bits, _ = least_loss(items, budget)
    chosen: list[int] = spend_remaining_bits(items, bits, budget).tolist()
    return chosen
