"""Widths of items at the least loss under a budget of bits: a knapsack of multiple choice.

An item of n values loses `losses[k]` at the k-th of the widths that it may have, and takes `n width` bits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Items:
    """What the bits are shared among: `losses` float64 [I, W] at each of the `widths` W, ascending by ones.

    `sizes` int64 [I] are the numbers of values. No item gets more than `largest` bits.
    """

    losses: Tensor
    sizes: Tensor
    widths: Sequence[int]
    largest: int

    @property
    def least(self) -> int:
        """The width that everyone has at least."""
        return self.widths[0]

    def bits(self, chosen: Tensor) -> int:
        """Return what some widths [I] take together."""
        return int((self.sizes * chosen).sum())

    def budget(self, average_bits: float) -> int:
        """Return the bits that a mean for each value comes to."""
        return int(average_bits * int(self.sizes.sum()) + 1e-6)

    def loss_change(self, chosen: Tensor, to: Tensor) -> Tensor:
        """Return what other widths [I] lose more, per value of each item."""
        everyone, last = torch.arange(len(chosen)), len(self.widths) - 1
        after = self.losses[everyone, (to - self.least).clamp(0, last)]
        return (after - self.losses[everyone, chosen - self.least]) / self.sizes


@dataclass(frozen=True, eq=False)
class Steps:
    """Steps up the lower convex hulls of all items, those first that save most per bit; tensors [steps].

    `items` says whose it is, `slopes` what it saves per bit, `costs` its bits, and it leads from `source` to `to`.
    """

    items: Tensor
    slopes: Tensor
    costs: Tensor
    source: Tensor
    to: Tensor


def hull_steps(items: Items) -> Steps:
    """Return all steps up the hulls."""
    losses, sizes, widths = items.losses, items.sizes, torch.tensor(items.widths)
    found: list[tuple[Tensor, ...]] = []
    at = torch.zeros(len(losses), dtype=torch.int64)
    while True:
        saved = losses.gather(1, at[:, None]) - losses
        bits = (widths - widths[at][:, None]) * sizes[:, None]
        slopes, to = torch.where(bits > 0, saved / bits.clamp(min=1), 0.0).max(1)
        able = (slopes > 0).nonzero().flatten()
        if not len(able):
            break
        cost = bits.gather(1, to[:, None])[:, 0]
        found.append((able, slopes[able], cost[able], widths[at[able]], widths[to[able]]))
        at = torch.where(slopes > 0, to, at)
    if not found:
        return Steps(*(torch.empty(0, dtype=torch.int64) for _ in range(5)))
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    # On a hull slopes fall, so that an item's steps stay in their order.
    order = columns[1].argsort(descending=True, stable=True)
    return Steps(*(column[order] for column in columns))


def least_loss(items: Items, budget: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return widths [I], and the steps that would come next if the budget were larger, (item, width).

    Steps up the hulls in the order of what they save per bit, as far as the budget goes: the optimum for the budget
    then spent (Lagrange). Steps further down that still fit fill up what is left.
    """
    steps = hull_steps(items)
    chosen = torch.full((len(items.losses),), items.least, dtype=torch.int64)
    left, missed = budget - items.bits(chosen), []
    columns = (steps.items, steps.costs, steps.source, steps.to)
    for item, cost, low, high in zip(*(column.tolist() for column in columns), strict=True):
        if chosen[item] == low and cost <= left:
            chosen[item], left = high, left - cost
        else:
            missed.append((item, high))
    return chosen, missed


def filled(items: Items, chosen: Tensor, budget: int) -> Tensor:
    """Return widths [I] near the given ones that use the budget: one bit after the other, where it matters least."""
    chosen = chosen.clone()
    while items.bits(chosen) > budget and bool((chosen > items.least).any()):
        dearer = items.loss_change(chosen, chosen - 1)
        chosen[torch.where(chosen > items.least, dearer, torch.inf).argmin()] -= 1
    while True:
        fits = (items.sizes <= budget - items.bits(chosen)) & (chosen < items.largest)
        if not bool(fits.any()):
            return chosen
        chosen[torch.where(fits, items.loss_change(chosen, chosen + 1), torch.inf).argmin()] += 1


def lower_bound(items: Items, budget: float) -> float:
    """Return a loss that no widths within the budget get below: that of the relaxed problem, with parts of steps."""
    steps = hull_steps(items)
    left = budget - items.bits(torch.full_like(items.sizes, items.least))
    before = torch.cumsum(steps.costs, 0) - steps.costs
    taken = ((left - before) / steps.costs).clamp(0, 1)
    return float(items.losses[:, 0].sum() - (steps.slopes * steps.costs * taken).sum())
