"""How many bits each output channel's weights get, under a budget of bits for the whole network.

A channel c of n_c weights w_c with Hessian trace t_c loses, at k bits, about

    L_c(k) = t_c / (2 n_c) ||w_c - Q_k(w_c)||^2

(second-order Taylor with the mean second derivative for all weights: HAWQ-V2, Dong et al. 2020, arXiv 1911.03852,
equation 5, for a channel instead of a layer), in nats where the Hessian is that of KL. To be chosen are widths k_c of 2
to 8 bits with the least sum of losses and `sum n_c k_c` within the budget: a knapsack of multiple choice.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from fertool.errors import FertoolError, unknown_name
from fertool.graph.folding import fold_for_inference
from fertool.models.build import static
from fertool.models.entrance import rounded_sites
from fertool.models.quantized import dequantize, per_channel
from fertool.quant import knapsack
from fertool.quant.knapsack import Items, filled, least_loss
from fertool.quant.observers import integer_weight, weight_scales
from fertool.spec import WEIGHT_BITS, Spec, WeightQuant

_LEAST_CURVATURE = 1e-6
"""Of the median: what a channel's weights matter at least."""


@dataclass(frozen=True, eq=False)
class Problem:
    """The channels of a network: `weights` [C] counts their weights, `losses` [C, 7] is what each width loses.

    `layers` [C] is the index in `names` of each channel's layer, `traces` [C] the mean second derivative of its
    weights, and `errors` [C, 7] the squared error of these. No channel needs more than `largest` bits.
    """

    names: tuple[str, ...]
    layers: Tensor
    weights: Tensor
    traces: Tensor
    errors: Tensor
    largest: int = WEIGHT_BITS[-1]

    @property
    def losses(self) -> Tensor:
        """What each channel loses at each width, [C, 7]; no less than at the largest that it needs."""
        needed = torch.arange(len(WEIGHT_BITS)).clamp(max=self.largest - WEIGHT_BITS[0])
        return self.traces[:, None] / 2 * self.errors[:, needed]

    @property
    def items(self) -> Items:
        """The channels as what bits are shared among."""
        return Items(self.losses, self.weights, WEIGHT_BITS, self.largest)

    def loss(self, widths: Tensor) -> float:
        """Return the sum of the losses of some widths [C]."""
        return float(self.losses.gather(1, (widths - WEIGHT_BITS[0])[:, None]).sum())

    def average_bits(self, widths: Tensor) -> float:
        """Return the mean bits of a weight under some widths [C]."""
        return self.items.bits(widths) / int(self.weights.sum())

    def by_layer(self, widths: Tensor) -> dict[str, tuple[int, ...]]:
        """Return widths [C] as those of each layer's channels."""
        return {
            name: tuple(widths[self.layers == index].tolist())
            for index, name in enumerate(self.names)
        }


def make_problem(
    spec: Spec,
    module: nn.Module,
    traces: Mapping[str, Sequence[float]] | None,
    limit: int = 127,
    keep_float: Sequence[str] = (),
) -> Problem:
    """Return the problem of a float network; `traces` are those of its weights, one per output channel.

    Without traces all weights matter alike. Batch norm is folded into the weights, and the traces follow: a weight s
    times as large has a second derivative 1 / s^2 times as large. Layers that match `keep_float` are not in it.
    """
    graph_module = fold_for_inference(static(module))
    names = tuple(rounded_sites(graph_module, spec.input, keep_float).layer_inputs)
    counts, curvatures, errors = [], [], []
    for name in names:
        weight = graph_module.get_parameter(f"{name}.weight").detach().cpu()
        before, after = (
            w.detach().cpu().flatten(1).double()
            for w in (module.get_parameter(f"{name}.weight"), weight)
        )
        count = torch.full((len(weight),), weight[0].numel())
        counts.append(count)
        if traces is None:
            curvatures.append(torch.ones(len(weight), dtype=torch.float64))
        else:
            stretched = after.square().sum(1) / before.square().sum(1).clamp(min=1e-300)
            trace = torch.tensor(traces[name], dtype=torch.float64) / count
            curvatures.append(torch.where(stretched > 0, trace / stretched.clamp(min=1e-300), 0.0))
        errors.append(_errors(weight, limit))
    layers = torch.repeat_interleave(
        torch.arange(len(names)), torch.tensor([len(count) for count in counts])
    )
    means = torch.cat(curvatures).clamp(min=0)
    # Among channels that seem not to matter, or whose estimate is below 0, their errors decide.
    known = means[means > 0]
    means = means.clamp(min=_LEAST_CURVATURE * float(known.median()) if len(known) else 1.0)
    largest = WeightQuant((WEIGHT_BITS[-1],), limit).stored_bits(1)[0]
    return Problem(names, layers, torch.cat(counts), means, torch.cat(errors), largest)


def allocate(name: str, problem: Problem, average_bits: float) -> Tensor:
    """Return the width of each channel, int64 [C], by the allocation of this name, within a mean of `average_bits`.

    Raises FertoolError for less than 2 bits a weight, and UsageError for another name.
    """
    if name not in ALLOCATIONS:
        raise unknown_name("--allocation", name, tuple(ALLOCATIONS))
    if average_bits < WEIGHT_BITS[0]:
        raise FertoolError(
            f"a budget of {average_bits:.2f} bits a weight: the least is {WEIGHT_BITS[0]}",
            "ask for more bits or bytes",
        )
    return ALLOCATIONS[name](problem, problem.items.budget(average_bits))


def uniform(problem: Problem, budget: int) -> Tensor:
    """Return the same width for all channels or, where the budget lies between two, both in turn."""
    mean = min(budget / int(problem.weights.sum()), problem.largest)
    total = torch.cumsum(problem.weights * mean, 0)
    widths, spent = torch.empty(len(problem.weights), dtype=torch.int64), 0
    for channel, (count, until) in enumerate(
        zip(problem.weights.tolist(), total.tolist(), strict=True)
    ):
        width = min(max(int((until - spent + 1e-6) // count), int(mean)), problem.largest)
        widths[channel] = width
        spent += count * width
    return widths


def hawq(problem: Problem, budget: int) -> Tensor:
    """Return one width for each layer, by its mean trace (HAWQ-V2), but for the few channels that the rest goes to."""
    count = len(problem.names)

    def summed(values: Tensor) -> Tensor:
        return values.new_zeros((count, *values.shape[1:])).index_add_(0, problem.layers, values)

    weights = summed(problem.weights)
    mean = summed(problem.traces * problem.weights) / weights
    losses = summed(replace(problem, traces=mean[problem.layers]).losses)
    chosen, rest = least_loss(replace(problem.items, losses=losses, sizes=weights), budget)
    widths = chosen[problem.layers]
    if rest:
        layer, width = rest[0]
        for channel in (problem.layers == layer).nonzero().flatten().tolist():
            extra = int(problem.weights[channel]) * (width - int(widths[channel]))
            if extra <= budget - problem.items.bits(widths):
                widths[channel] = width
    return filled(problem.items, widths, budget)


def optimal(problem: Problem, budget: int) -> Tensor:
    """Return the widths of least loss, at most one channel's step away from the best that there are.

    What no step up the hulls makes better gets what is left of the budget.
    """
    return filled(problem.items, least_loss(problem.items, budget)[0], budget)


def lower_bound(problem: Problem, average_bits: float) -> float:
    """Return a loss that no widths within the budget get below."""
    return knapsack.lower_bound(problem.items, average_bits * float(problem.weights.sum()))


ALLOCATIONS: Mapping[str, Callable[[Problem, int], Tensor]] = {
    "optimal": optimal,
    "hawq": hawq,
    "uniform": uniform,
}


def _errors(weight: Tensor, limit: int) -> Tensor:
    """Return the squared rounding error of each channel at each width, float64 [out, 7]."""
    columns = []
    for width in WEIGHT_BITS:
        limits = torch.tensor(WeightQuant((width,), limit).limits(len(weight)))
        scale = weight_scales(weight, limits, "mse")
        rounded = dequantize(integer_weight(weight, scale, limits), per_channel(scale, weight))
        columns.append((rounded - weight).flatten(1).double().square().sum(1))
    # More bits never hurt, whatever the search for scales found.
    return torch.stack(columns, 1).cummin(1).values
