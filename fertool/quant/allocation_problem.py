"""How many bits each output channel's weights get, under a budget of bits for the whole network.

A channel c of n_c weights w_c with Hessian trace t_c loses, at k bits, about

    L_c(k) = t_c / (2 n_c) ||w_c - Q_k(w_c)||^2

(second-order Taylor with the mean second derivative for all weights: HAWQ-V2, Dong et al. 2020,
arXiv 1911.03852, equation 5, for a channel instead of a layer), in nats where the Hessian is that
of KL. Wanted are bits k_c of 2 to 8 with the least sum of losses and `sum n_c k_c` within the
budget: a knapsack of multiple choice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.graph.folding import fold_for_inference
from fertool.models.build import require_static
from fertool.models.float_prefix import plan_quantizers
from fertool.models.quantized import dequantize, per_channel
from fertool.quant import knapsack
from fertool.quant.knapsack import KnapsackItems
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import WEIGHT_BITS, Spec, WeightQuant

# The least second derivative of a channel's weights, as a fraction of the median.
_LEAST_CURVATURE = 1e-6


@dataclass(frozen=True, eq=False)
class AllocationProblem:
    """The channels of a network among which bits are allocated.

    `layers` [C] is the index in `names` of each channel's layer, `weight_counts` [C] the number of
    its weights, `traces` [C] their mean second derivative, and `errors` [C, 7] their squared
    rounding error at each number of bits. `divergences` [C, 7] are what the rounding does to the
    outputs, in nats, where that is measured. No channel needs more than `max_bits`.
    """

    names: tuple[str, ...]
    layers: Tensor
    weight_counts: Tensor
    traces: Tensor
    errors: Tensor
    max_bits: int = WEIGHT_BITS[-1]
    divergences: Tensor | None = None

    @property
    def needed_columns(self) -> Tensor:
        """The column of each number of bits, int64 [7]; that of `max_bits` for those above it."""
        return torch.arange(len(WEIGHT_BITS)).clamp(max=self.max_bits - WEIGHT_BITS[0])

    @property
    def losses(self) -> Tensor:
        """The loss of each channel at each number of bits, [C, 7]; constant from `max_bits` on."""
        return self.traces[:, None] / 2 * self.errors[:, self.needed_columns]

    @property
    def items(self) -> KnapsackItems:
        """The channels as items of a knapsack."""
        return KnapsackItems(self.losses, self.weight_counts, WEIGHT_BITS, self.max_bits)

    def loss(self, bits: Tensor) -> float:
        """Return the sum of the losses with these bits [C]."""
        return float(self.losses.gather(1, (bits - WEIGHT_BITS[0])[:, None]).sum())

    def average_bits(self, bits: Tensor) -> float:
        """Return the mean bits of a weight with these bits [C]."""
        return self.items.total_bits(bits) / int(self.weight_counts.sum())

    def by_layer(self, bits: Tensor) -> dict[str, tuple[int, ...]]:
        """Return bits [C] as those of each layer's channels."""
        layers = {}
        for index, name in enumerate(self.names):
            layers[name] = tuple(bits[self.layers == index].tolist())
        return layers


def make_problem(
    spec: Spec,
    module: nn.Module,
    traces: Mapping[str, Sequence[float]] | None,
    limit: int = 127,
    keep_float: Sequence[str] = (),
) -> AllocationProblem:
    """Return the problem of a float network; `traces` are those of its weights, by output channel.

    Without traces all weights matter equally. `limit` is the largest integer of an 8-bit weight.
    Layers that match `keep_float` are not included.
    """
    graph_module = fold_for_inference(require_static(module))
    names = tuple(plan_quantizers(graph_module, spec.input, keep_float).layer_inputs)
    counts, curvatures, errors, layers = [], [], [], []
    for index, name in enumerate(names):
        weight = graph_module.get_parameter(f"{name}.weight").detach().cpu()
        count = torch.full((len(weight),), weight[0].numel())
        if traces is None:
            curvature = torch.ones(len(weight), dtype=torch.float64)
        else:
            trace = torch.tensor(traces[name], dtype=torch.float64) / count
            unfolded = module.get_parameter(f"{name}.weight").detach().cpu()
            curvature = _folded_curvature(trace, unfolded, weight)
        layers.append(torch.full_like(count, index))
        counts.append(count)
        curvatures.append(curvature)
        errors.append(_rounding_errors(weight, limit))

    return AllocationProblem(
        names=names,
        layers=torch.cat(layers),
        weight_counts=torch.cat(counts),
        traces=_with_floor(torch.cat(curvatures)),
        errors=torch.cat(errors),
        max_bits=WeightQuant((WEIGHT_BITS[-1],), limit).stored_bits(1)[0],
    )


def _folded_curvature(trace: Tensor, before: Tensor, after: Tensor) -> Tensor:
    """Return the mean second derivatives [out] of weights after batch norm is folded into them.

    A weight s times as large has a second derivative 1 / s^2 times as large.
    """
    norm_before = before.flatten(1).double().square().sum(1)
    norm_after = after.flatten(1).double().square().sum(1)
    stretched = norm_after / norm_before.clamp(min=1e-300)
    return torch.where(stretched > 0, trace / stretched.clamp(min=1e-300), 0.0)


def _with_floor(curvatures: Tensor) -> Tensor:
    """Return the curvatures of all channels, none 0 or less.

    Among channels that seem not to matter, or whose estimate is below 0, their errors decide.
    """
    curvatures = curvatures.clamp(min=0)
    known = curvatures[curvatures > 0]
    if not len(known):
        return curvatures.clamp(min=1.0)
    return curvatures.clamp(min=_LEAST_CURVATURE * float(known.median()))


def lower_bound(problem: AllocationProblem, average_bits: float) -> float:
    """Return a loss that no bits within the budget get below."""
    budget = average_bits * float(problem.weight_counts.sum())
    return knapsack.lower_bound(problem.items, budget)


def _rounding_errors(weight: Tensor, limit: int) -> Tensor:
    """Return the squared rounding error of each channel by bits, float64 [out, 7]."""
    columns = []
    for bits in WEIGHT_BITS:
        limits = torch.tensor(WeightQuant((bits,), limit).limits(len(weight)))
        scale = weight_scales(weight, limits, "mse")
        rounded = dequantize(integer_weight(weight, scale, limits), per_channel(scale, weight))
        columns.append((rounded - weight).flatten(1).double().square().sum(1))
    # More bits never hurt, whatever the search for scales found.
    return torch.stack(columns, 1).cummin(1).values
