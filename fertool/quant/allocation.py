"""How many bits each output channel's weights get, under a budget of bits for the whole network.

A channel c of n_c weights w_c with Hessian trace t_c loses, at k bits, about

    L_c(k) = t_c / (2 n_c) ||w_c - Q_k(w_c)||^2

(second-order Taylor with the mean second derivative for all weights: HAWQ-V2, Dong et al. 2020,
arXiv 1911.03852, equation 5, for a channel instead of a layer), in nats where the Hessian is that
of KL. Wanted are bits k_c of 2 to 8 with the least sum of losses and `sum n_c k_c` within the
budget: a knapsack of multiple choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError, unknown_name
from fertool.graph.folding import fold_for_inference
from fertool.models.build import require_static
from fertool.models.float_prefix import plan_quantizers
from fertool.models.quantized import dequantize, per_channel
from fertool.quant import knapsack
from fertool.quant.knapsack import KnapsackItems, least_loss, spend_remaining_bits
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import WEIGHT_BITS, Spec, WeightQuant

# The least second derivative of a channel's weights, as a fraction of the median.
_LEAST_CURVATURE = 1e-6


@dataclass(frozen=True, eq=False)
class AllocationProblem:
    """The channels of a network among which bits are allocated.

    `layers` [C] is the index in `names` of each channel's layer, `weight_counts` [C] the number of
    its weights, `traces` [C] their mean second derivative, and `errors` [C, 7] their squared
    rounding error at each number of bits. No channel needs more than `max_bits`.
    """

    names: tuple[str, ...]
    layers: Tensor
    weight_counts: Tensor
    traces: Tensor
    errors: Tensor
    max_bits: int = WEIGHT_BITS[-1]

    @property
    def losses(self) -> Tensor:
        """The loss of each channel at each number of bits, [C, 7]; constant from `max_bits` on."""
        needed = torch.arange(len(WEIGHT_BITS)).clamp(max=self.max_bits - WEIGHT_BITS[0])
        return self.traces[:, None] / 2 * self.errors[:, needed]

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


def allocate(name: str, problem: AllocationProblem, average_bits: float) -> Tensor:
    """Return the bits of each channel, int64 [C], by the allocation of this name.

    Their mean over the weights is `average_bits` or less. Raises FertoolError for less than 2 bits
    a weight, and UsageError for another name.
    """
    if name not in ALLOCATIONS:
        raise unknown_name("``allocation``", name, tuple(ALLOCATIONS))
    if average_bits < WEIGHT_BITS[0]:
        raise FertoolError(
            f"a budget of {average_bits:.2f} bits a weight: the least is {WEIGHT_BITS[0]}",
            "ask for more bits or bytes",
        )
    return ALLOCATIONS[name](problem, problem.items.budget(average_bits))


def uniform(problem: AllocationProblem, budget: int) -> Tensor:
    """Return the same bits for all channels or, where the budget lies between two, a mix of both.

    The mix is even along the channels, so that no layer gets more than another.
    """
    mean = min(budget / int(problem.weight_counts.sum()), problem.max_bits)
    # What all channels up to each one may take together.
    allowed = torch.cumsum(problem.weight_counts * mean, 0)
    bits = torch.empty(len(problem.weight_counts), dtype=torch.int64)
    spent = 0
    pairs = zip(problem.weight_counts.tolist(), allowed.tolist(), strict=True)
    for channel, (count, until) in enumerate(pairs):
        affordable = int((until - spent + 1e-6) // count)
        chosen = min(max(affordable, int(mean)), problem.max_bits)
        bits[channel] = chosen
        spent += count * chosen
    return bits


def hawq(problem: AllocationProblem, budget: int) -> Tensor:
    """Return the same bits for all channels of a layer, by the layer's mean trace (HAWQ-V2).

    Only the few channels that the rest of the budget goes to have more.
    """
    weights = _sum_by_layer(problem, problem.weight_counts)
    mean = _sum_by_layer(problem, problem.traces * problem.weight_counts) / weights
    losses = _sum_by_layer(problem, replace(problem, traces=mean[problem.layers]).losses)
    items = replace(problem.items, losses=losses, sizes=weights)
    by_layer, missed = least_loss(items, budget)
    bits = by_layer[problem.layers]
    if missed:
        # The layer that was next in turn gets as many of its channels as still fit.
        layer, more = missed[0]
        for channel in (problem.layers == layer).nonzero().flatten().tolist():
            extra = int(problem.weight_counts[channel]) * (more - int(bits[channel]))
            if extra <= budget - problem.items.total_bits(bits):
                bits[channel] = more
    return spend_remaining_bits(problem.items, bits, budget)


def _sum_by_layer(problem: AllocationProblem, values: Tensor) -> Tensor:
    sums = values.new_zeros((len(problem.names), *values.shape[1:]))
    return sums.index_add_(0, problem.layers, values)


def optimal(problem: AllocationProblem, budget: int) -> Tensor:
    """Return the bits of least loss, at most one channel's step away from the best possible.

    What is left of the budget is spent one bit at a time.
    """
    bits, _ = least_loss(problem.items, budget)
    return spend_remaining_bits(problem.items, bits, budget)


def lower_bound(problem: AllocationProblem, average_bits: float) -> float:
    """Return a loss that no bits within the budget get below."""
    budget = average_bits * float(problem.weight_counts.sum())
    return knapsack.lower_bound(problem.items, budget)


ALLOCATIONS: Mapping[str, Callable[[AllocationProblem, int], Tensor]] = {
    "optimal": optimal,
    "hawq": hawq,
    "uniform": uniform,
}


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
