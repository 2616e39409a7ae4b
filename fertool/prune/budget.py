"""New widths under a budget of multiply-accumulates, parameters, stored numbers, seconds or channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fertool.errors import FertoolError, UsageError
from fertool.graph.channel_graph import ChannelGraph
from fertool.graph.groups import Groups
from fertool.prune.latency_model import LANES, NO_TIME, LatencyModel, typical_latency
from fertool.prune.width_candidates import Ladder

MACS, SECONDS = 0, 3
"""Where they stand among the costs."""
PACE = 1.5
"""What a saved part of the time counts under a budget of MACs, in parts of these."""
SLACK = 0.9
"""A step that would land below this part of the target waits as long as a smaller one exists."""


class UnreachableError(FertoolError):
    """A budget below what the floors allow."""


@dataclass(frozen=True)
class Targets:
    """What may remain, as parts of the given network's cost; at least one.

    `macs`, `params`, `size`: the numbers that a file stores, which are the parameters and the statistics of BN,
    `latency`, for which there has to be a LatencyModel; and `channels` that can go, which schedules go down by and no
    option asks for.
    """

    macs: float | None = None
    params: float | None = None
    size: float | None = None
    latency: float | None = None
    channels: float | None = None

    def __post_init__(self) -> None:
        if all(ratio is None for ratio in self.ratios):
            raise UsageError(
                "no target for pruning", "give --target-flops, --target-params or --target-size"
            )
        flags = ("--target-flops", "--target-params", "--target-size", "--target-latency")
        for flag, ratio in zip(flags, self.ratios, strict=False):
            if ratio is not None and not 0 < ratio < 1:
                raise UsageError(
                    f"{flag} {ratio:g}: not between 0 and 1", f"for example {flag} 0.5"
                )

    @property
    def ratios(self) -> tuple[float | None, ...]:
        """All of them, in the order of `CostModel.costs`."""
        return self.macs, self.params, self.size, self.latency, self.channels


@dataclass(frozen=True, eq=False)
class CostModel:
    """MACs, parameters, stored numbers, seconds and channels as a function of the widths [groups] alone.

    Channel counts are linear in the widths: `inputs` and `outputs` [layers, groups] hold the factors, the last column
    the constants. `shared` marks layers whose channels share one block of weights; `terms` [4, layers, 1] are those of
    the layers in the `latency` model.
    """

    inputs: Tensor
    outputs: Tensor
    dense: Tensor
    shared: Tensor
    taps: Tensor
    per_output: Tensor
    statistics: Tensor
    positions: Tensor
    latency: LatencyModel
    terms: Tensor

    @classmethod
    def of(cls, graph: ChannelGraph, groups: Groups, latency: LatencyModel) -> CostModel:
        """Read the factors off the graph of a network."""
        size = torch.tensor([*groups.sizes, 1], dtype=torch.float64)

        def factors(classes: Tensor) -> Tensor:
            return (
                torch.bincount(groups.group_of_id[classes] % len(size), minlength=len(size)) / size
            )

        def column(values: list[int]) -> Tensor:
            return torch.tensor(values, dtype=torch.float64)[:, None]

        layers = graph.layers
        return cls(
            torch.stack([factors(layer.inputs) for layer in layers]),
            torch.stack([factors(layer.outputs) for layer in layers]),
            torch.tensor([layer.kind == "dense" for layer in layers])[:, None],
            torch.tensor([layer.kind == "channel_conv" for layer in layers])[:, None],
            column([layer.kernel_elements for layer in layers]),
            column([layer.per_output for layer in layers]),
            column([2 * (layer.kind == "norm") for layer in layers]),
            column([layer.positions for layer in layers]),
            latency,
            latency.columns(layers),
        )

    def costs(self, widths: Tensor, changes: Tensor) -> Tensor:
        """Return [5, groups], the costs as in `Targets.ratios`, if only the k-th width changes, by `changes[k]`."""
        inputs = (self.inputs[:, :-1] @ widths + self.inputs[:, -1])[:, None] + self.inputs[
            :, :-1
        ] * changes
        outputs = (self.outputs[:, :-1] @ widths + self.outputs[:, -1])[:, None] + self.outputs[
            :, :-1
        ] * changes
        weights = self.taps * outputs * torch.where(self.dense, inputs, 1.0)
        params = torch.where(
            self.shared, self.taps + self.per_output, weights + self.per_output * outputs
        )
        stored = params + self.statistics * outputs
        macs = (weights * self.positions).sum(0)
        seconds = self.latency.total(self.terms, inputs, outputs)
        return torch.stack([macs, params.sum(0), stored.sum(0), seconds, widths.sum() + changes])


def choose_widths(
    graph: ChannelGraph,
    groups: Groups,
    ladders: list[Ladder],
    targets: Targets,
    round_to: int,
    latency: LatencyModel = NO_TIME,
) -> dict[str, int]:
    """Return the sizes of the groups that meet the targets at the least loss.

    The step down a ladder that loses least per saved MAC or parameter is taken, anywhere in the network, again and
    again; then what is left of the budget goes to the steps up that regain most. A budget of MACs is there for the time
    that they take, which is why a step that saves more of that counts for more: by the `latency` model or, without one,
    by what is typical. Raises FertoolError with the smallest reachable ratio when the floors forbid the targets, and
    UsageError for a target in time that nobody has measured.
    """
    if targets.latency is not None and not latency.terms:
        raise UsageError(
            f"--target-latency {targets.latency:g}: nothing has been measured",
            "learn a latency model",
        )
    clock = latency if latency.terms else typical_latency(graph.layers).in_steps_of(round_to)
    model = CostModel.of(graph, groups, clock)
    last = torch.tensor([len(ladder.widths) - 1 for ladder in ladders])
    steps = torch.zeros_like(last)
    current = _widths_at(ladders, steps)
    start = cost = model.costs(current, torch.zeros_like(current))[:, 0]
    # Not start * inf, which is nothing where nothing was measured.
    pairs = zip(targets.ratios, start.tolist(), strict=True)
    limit = torch.tensor(
        [math.inf if ratio is None else ratio * cost for ratio, cost in pairs], dtype=torch.float64
    )
    while bool((cost > limit).any()):
        if not bool((steps < last).any()):
            raise _unreachable(graph, cost / start, targets, round_to)
        lower = torch.minimum(steps + 1, last)
        after = model.costs(current, _widths_at(ladders, lower) - current)
        chosen = _cheapest(
            start, cost, after, limit, _loss_between(ladders, steps, lower), steps < last
        )
        steps[chosen] += 1
        current, cost = _widths_at(ladders, steps), after[:, chosen]
    current = _with_the_rest_spent(model, ladders, steps, limit)
    return {name: int(width) for name, width in zip(groups.names, current.tolist(), strict=True)}


def _with_the_rest_spent(
    model: CostModel, ladders: list[Ladder], steps: Tensor, limit: Tensor
) -> Tensor:
    """Go back up, where that regains most, as long as a step fits under `limit`; returns the widths [groups].

    No width goes back to a ragged one, which takes more time than a rest of the budget is worth.
    """
    ragged = torch.tensor([ladder.widths[0] % LANES > 0 for ladder in ladders])
    slow = ((model.terms[-1] > 0) & (model.inputs[:, :-1] > 0)).any(0)
    top = (ragged & slow & (steps > 0)).long()
    while True:
        current, higher = _widths_at(ladders, steps), torch.maximum(steps - 1, top)
        after = model.costs(current, _widths_at(ladders, higher) - current)
        regained = torch.where(
            (after <= limit[:, None]).all(0), _loss_between(ladders, higher, steps), 0.0
        )
        if not (regained > 0).any():
            return current
        steps[regained.argmax()] -= 1


def _widths_at(ladders: list[Ladder], steps: Tensor) -> Tensor:
    rungs = zip(ladders, steps.tolist(), strict=True)
    return torch.tensor([ladder.widths[step] for ladder, step in rungs], dtype=torch.float64)


def _loss_between(ladders: list[Ladder], steps: Tensor, lower: Tensor) -> Tensor:
    """Return for each key [groups] what the way from one of its rungs to a lower one loses."""
    return torch.stack(
        [
            ladder.losses[b] - ladder.losses[a]
            for ladder, a, b in zip(ladders, steps, lower, strict=True)
        ]
    )


def _cheapest(
    start: Tensor, cost: Tensor, after: Tensor, limit: Tensor, lost: Tensor, able: Tensor
) -> int:
    """Return the key whose step loses least per saved cost among those that do not fall far below the target."""
    open_budgets = cost > limit
    gentle = able & ((after >= SLACK * limit[:, None]) | ~open_budgets[:, None]).all(0)
    price = open_budgets / limit
    price[SECONDS] += PACE * price[MACS] * start[MACS] / start[SECONDS]
    saved = price @ (cost[:, None] - after)
    if not gentle.any():
        return int(torch.where(able, saved, math.inf).argmin())
    return int(torch.where(gentle, lost / saved.clamp(min=1e-300), math.inf).argmin())


def _unreachable(
    graph: ChannelGraph, ratios: Tensor, targets: Targets, round_to: int
) -> UnreachableError:
    """Return the error for a budget below what the floors allow, with the layers that cost most there."""
    short = [
        f"{what} at {float(ratio):.3f} of what they are where {target:g} was asked"
        for what, target, ratio in zip(
            ("MACs", "parameters", "stored numbers", "latency", "channels"),
            targets.ratios,
            ratios,
            strict=True,
        )
        if target is not None and ratio > target
    ]
    heavy = sorted(
        (layer for layer in graph.layers if layer.kind == "dense"),
        key=lambda la: -la.positions * la.pairs,
    )
    return UnreachableError(
        f"the smallest reachable network has {' and '.join(short)}; "
        f"most of it lies in {', '.join(layer.name for layer in heavy[:3])}",
        f"ask for more, or lower --round-to (now {round_to})",
    )
