"""Bits of items at the least loss under a budget: a knapsack of multiple choice.

An item of n values loses `losses[k]` at the k-th number of bits that it may have, b, and takes n b
bits of the budget. Steps along the lower convex hull of each item's losses, in the order of their
savings, solve the relaxed problem (Sinha and Zoltners 1979, "The multiple-choice knapsack
problem").
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class KnapsackItems:
    """The items: `losses` float64 [I, B] at each of the `choices` B of bits, ascending by ones.

    `sizes` int64 [I] are the numbers of values. No item gets more than `max_bits`.
    """

    losses: Tensor
    sizes: Tensor
    choices: Sequence[int]
    max_bits: int

    @property
    def min_bits(self) -> int:
        """The bits that each item has at least."""
        return self.choices[0]

    def total_bits(self, bits: Tensor) -> int:
        """Return what the items take together with these bits [I]."""
        return int((self.sizes * bits).sum())

    def budget(self, average_bits: float) -> int:
        """Return the total bits of a mean for each value."""
        # The margin makes a mean that was computed from a total give that total again.
        return int(average_bits * int(self.sizes.sum()) + 1e-6)

    def loss_change(self, bits: Tensor, to: Tensor) -> Tensor:
        """Return what each item loses more with other bits [I], per value of the item."""
        every = torch.arange(len(bits))
        last = len(self.choices) - 1
        # Outside the choices any loss does: callers exclude these items.
        after = self.losses[every, (to - self.min_bits).clamp(0, last)]
        return (after - self.losses[every, bits - self.min_bits]) / self.sizes


@dataclass(frozen=True, eq=False)
class HullSteps:
    """Steps up the lower convex hulls of all items, the largest saving per bit first.

    Tensors [steps]: `items` the item, `slopes` what the step saves per bit, `costs` its bits;
    it leads from `from_bits` to `to_bits`.
    """

    items: Tensor
    slopes: Tensor
    costs: Tensor
    from_bits: Tensor
    to_bits: Tensor


def hull_steps(items: KnapsackItems) -> HullSteps:
    """Return all steps up the hulls."""
    losses = items.losses
    choices = torch.tensor(items.choices)
    found: list[tuple[Tensor, ...]] = []
    present = torch.zeros(len(losses), dtype=torch.int64)
    while True:
        # From the present bits the steepest step to any larger number of bits is on the hull.
        saved = losses.gather(1, present[:, None]) - losses
        bits = (choices - choices[present][:, None]) * items.sizes[:, None]
        slopes, best = torch.where(bits > 0, saved / bits.clamp(min=1), 0.0).max(1)
        able = (slopes > 0).nonzero().flatten()
        if not len(able):
            break
        cost = bits.gather(1, best[:, None])[:, 0]
        from_bits, to_bits = choices[present[able]], choices[best[able]]
        found.append((able, slopes[able], cost[able], from_bits, to_bits))
        present = torch.where(slopes > 0, best, present)

    if not found:
        none = torch.empty(0, dtype=torch.int64)
        return HullSteps(none, none, none, none, none)
    columns = [torch.cat(column) for column in zip(*found, strict=True)]
    owners, slopes, costs, from_bits, to_bits = columns
    # On a hull slopes fall, so that an item's steps stay in their order.
    order = slopes.argsort(descending=True, stable=True)
    return HullSteps(
        items=owners[order],
        slopes=slopes[order],
        costs=costs[order],
        from_bits=from_bits[order],
        to_bits=to_bits[order],
    )


def least_loss(items: KnapsackItems, budget: int) -> tuple[Tensor, list[tuple[int, int]]]:
    """Return bits [I], and the steps that a larger budget would take next, (item, bits).

    Steps up the hulls in the order of their savings per bit, as far as the budget goes: the optimum
    for the budget then spent (Lagrange). Later steps that still fit spend some of the rest.
    """
    steps = hull_steps(items)
    bits = torch.full((len(items.losses),), items.min_bits, dtype=torch.int64)
    left = budget - items.total_bits(bits)
    missed = []
    for item, cost, from_bits, to_bits in zip(
        steps.items.tolist(),
        steps.costs.tolist(),
        steps.from_bits.tolist(),
        steps.to_bits.tolist(),
        strict=True,
    ):
        # A step whose predecessor did not fit leads from bits that the item does not have.
        if bits[item] == from_bits and cost <= left:
            bits[item] = to_bits
            left -= cost
        else:
            missed.append((item, to_bits))
    return bits, missed


def spend_remaining_bits(items: KnapsackItems, bits: Tensor, budget: int) -> Tensor:
    """Return bits [I] near the given ones that use the budget.

    One bit after the other is added, or taken away above the budget, where it matters most or
    least.
    """
    bits = bits.clone()
    while items.total_bits(bits) > budget and bool((bits > items.min_bits).any()):
        lost = items.loss_change(bits, bits - 1)
        lost = torch.where(bits > items.min_bits, lost, torch.inf)
        bits[lost.argmin()] -= 1
    while True:
        fits = (items.sizes <= budget - items.total_bits(bits)) & (bits < items.max_bits)
        if not bool(fits.any()):
            return bits
        lost = torch.where(fits, items.loss_change(bits, bits + 1), torch.inf)
        bits[lost.argmin()] += 1


def lower_bound(items: KnapsackItems, budget: float) -> float:
    """Return a loss that no bits within the budget get below.

    That of the relaxed problem, in which fractions of steps can be taken.
    """
    steps = hull_steps(items)
    left = budget - items.total_bits(torch.full_like(items.sizes, items.min_bits))
    before = torch.cumsum(steps.costs, 0) - steps.costs
    taken = ((left - before) / steps.costs).clamp(0, 1)
    saved = (steps.slopes * steps.costs * taken).sum()
    return float(items.losses[:, 0].sum() - saved)
