"""The search for widths that meet a budget at the least loss."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from fertool.errors import UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.groups import Groups
from fertool.pruning.budget import (
    COST_NAMES,
    LATENCY_ROW,
    MACS_ROW,
    CostModel,
    Targets,
    UnreachableError,
)
from fertool.pruning.latency_model import (
    CHANNEL_ALIGNMENT,
    NO_LATENCY,
    LatencyModel,
    typical_latency,
)
from fertool.pruning.scored_layers import dense_layers
from fertool.pruning.width_candidates import WidthCandidates

# What a saved fraction of the time counts under a budget of MACs, in fractions of these.
LATENCY_WEIGHT = 1.5
# A step that would land below this fraction of a target waits as long as a smaller one exists:
# one large step at the end would spend less than the budget allows.
UNDERSHOOT_LIMIT = 0.9


def choose_widths(
    graph: ChannelGraph,
    groups: Groups,
    candidates: list[WidthCandidates],
    targets: Targets,
    round_to: int,
    latency: LatencyModel = NO_LATENCY,
) -> dict[str, int]:
    """Return the sizes of the groups that meet the targets at the least loss.

    Greedy: the step to a group's next candidate that loses least per saved MAC or parameter is
    taken, anywhere in the network, again and again; then the rest of the budget goes to the steps
    back that regain most. A budget of MACs stands for the time that they take, so a step that saves
    more time counts for more: by the `latency` model or, without one, by what is typical.

    Raises UnreachableError with the smallest reachable ratio when the floors forbid the targets,
    and UsageError for a target in time without a latency model.
    """
    if targets.latency is not None and not latency.terms:
        raise UsageError(
            f"``target_latency={targets.latency:g}``: nothing has been measured",
            "learn a latency model",
        )
    if not latency.terms:
        latency = typical_latency(graph.layers).for_rounding(round_to)
    model = CostModel.from_graph(graph, groups, latency)
    last = torch.tensor([len(group.widths) - 1 for group in candidates])
    steps = torch.zeros_like(last)
    widths = _widths_at(candidates, steps)
    # Nothing changes, so that all columns are the same: the costs as they are.
    start = model.costs(widths, torch.zeros_like(widths))[:, 0]
    cost = start
    limit = _limits(targets, start)

    while bool((cost > limit).any()):
        if not bool((steps < last).any()):
            raise _unreachable(graph, cost / start, targets, round_to)
        lower = torch.minimum(steps + 1, last)
        after = model.costs(widths, _widths_at(candidates, lower) - widths)
        chosen = _best_step(
            start=start,
            cost=cost,
            after=after,
            limit=limit,
            lost=_loss_between(candidates, steps, lower),
            possible=steps < last,
        )
        steps[chosen] += 1
        widths = _widths_at(candidates, steps)
        cost = after[:, chosen]

    widths = _spend_remaining_budget(model, candidates, steps, limit)
    return {name: int(width) for name, width in zip(groups.names, widths.tolist(), strict=True)}


def _limits(targets: Targets, start: Tensor) -> Tensor:
    """Return what each cost may be, [5]; infinite where there is no target."""
    limits = []
    for ratio, cost in zip(targets.ratios, start.tolist(), strict=True):
        # Not cost * inf, which is NaN where nothing was measured and the cost is 0.
        limits.append(math.inf if ratio is None else ratio * cost)
    return torch.tensor(limits, dtype=torch.float64)


def _spend_remaining_budget(
    model: CostModel, candidates: list[WidthCandidates], steps: Tensor, limit: Tensor
) -> Tensor:
    """Step back up where that regains most while the costs stay within `limit`.

    Returns the widths [groups]. No width returns to a misaligned one, which takes more time than
    the rest of a budget is worth.
    """
    misaligned = torch.tensor([group.widths[0] % CHANNEL_ALIGNMENT > 0 for group in candidates])
    # Groups that some layer reads which is slower on misaligned channels.
    slow = ((model.terms[-1] > 0) & (model.inputs[:, :-1] > 0)).any(0)
    top = (misaligned & slow & (steps > 0)).long()
    while True:
        widths = _widths_at(candidates, steps)
        higher = torch.maximum(steps - 1, top)
        after = model.costs(widths, _widths_at(candidates, higher) - widths)
        fits = (after <= limit[:, None]).all(0)
        regained = torch.where(fits, _loss_between(candidates, higher, steps), 0.0)
        if not (regained > 0).any():
            return widths
        steps[regained.argmax()] -= 1


def _widths_at(candidates: list[WidthCandidates], steps: Tensor) -> Tensor:
    """Return the width of each group at its candidate number, float64 [groups]."""
    widths = []
    for group, step in zip(candidates, steps.tolist(), strict=True):
        widths.append(group.widths[step])
    return torch.tensor(widths, dtype=torch.float64)


def _loss_between(candidates: list[WidthCandidates], steps: Tensor, lower: Tensor) -> Tensor:
    """Return what each group [groups] loses between one of its candidates and a lower one."""
    losses = []
    for group, step, next_step in zip(candidates, steps, lower, strict=True):
        losses.append(group.losses[next_step] - group.losses[step])
    return torch.stack(losses)


def _best_step(
    *, start: Tensor, cost: Tensor, after: Tensor, limit: Tensor, lost: Tensor, possible: Tensor
) -> int:
    """Return the group whose step loses least per saved cost and does not undershoot a target."""
    open_budgets = cost > limit
    above = (after >= UNDERSHOOT_LIMIT * limit[:, None]) | ~open_budgets[:, None]
    gentle = possible & above.all(0)

    # Of one unit of each cost, as a fraction of its limit; costs within their limits are free.
    price = open_budgets / limit
    # In the units of the MACs' price, by the ratio of both costs of the unpruned network.
    price[LATENCY_ROW] += LATENCY_WEIGHT * price[MACS_ROW] * start[MACS_ROW] / start[LATENCY_ROW]
    saved = price @ (cost[:, None] - after)
    if not gentle.any():
        # All steps undershoot: the smallest does so least.
        return int(torch.where(possible, saved, math.inf).argmin())
    loss_per_saved = lost / saved.clamp(min=1e-300)
    return int(torch.where(gentle, loss_per_saved, math.inf).argmin())


def _unreachable(
    graph: ChannelGraph, ratios: Tensor, targets: Targets, round_to: int
) -> UnreachableError:
    """Return the error for a budget below the floors, with the layers that cost most there."""
    missed = []
    for name, target, ratio in zip(COST_NAMES, targets.ratios, ratios, strict=True):
        if target is not None and ratio > target:
            reached = f"{name} at {float(ratio):.3f} of the original's"
            missed.append(f"{reached} where {target:g} was asked")
    heaviest = sorted(dense_layers(graph), key=lambda layer: -layer.positions * layer.pairs)[:3]
    return UnreachableError(
        f"the smallest reachable network has {' and '.join(missed)}; "
        f"most of it lies in {', '.join(layer.name for layer in heaviest)}",
        f"ask for more, or lower ``round_to`` (now {round_to})",
    )
