"""What a network of other widths would take: a few measured networks, and a curve through them for every layer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.prune.width_candidates import least_width

SCALES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
"""Networks in the table, by the share of every width that they have."""
GRAINS = (1, 8, 16, 32)
"""Multiples of channels among which the runtime's own is looked for."""
LANES = 4
"""Layers that read another number of channels than a multiple of this leave a runtime's fast layout."""
LEVEL = 0.12
"""A part of the rise from one multiple of the coarsest grain to the next that is no rise."""
FEWEST = 4
"""Networks that a curve goes through, at least."""

Terms = tuple[float, float, float, float]
NO_TERMS: Terms = (0.0, 0.0, 0.0, 0.0)
Seconds = Mapping[str, float]
"""Of each layer; what belongs to none is under another name."""
Profile = Callable[[Mapping[str, int]], tuple[Seconds, ChannelGraph]]
"""Measures the network with some numbers of channels by group; returns also its channel graph."""


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Seconds of a network on one machine as a function of its widths.

    A layer takes `a + b I O + c O` with the channels that it reads and makes, I and O, rounded up to `grain`; layers
    that keep their channels take `a + c O`. Where I is ragged, not a multiple of LANES, it takes `d I` more. `terms`
    [4] holds a to d by layer, `rest` is what belongs to none.
    """

    grain: int
    terms: Mapping[str, Terms]
    rest: float

    def in_steps_of(self, round_to: int) -> LatencyModel:
        """Return the model by which widths are chosen that change in such steps.

        Who goes by single channels could not get past ragged widths, which take longer, and has them at no price.
        """
        if round_to % LANES == 0:
            return self
        return replace(
            self, terms={name: (a, b, c, 0.0) for name, (a, b, c, _) in self.terms.items()}
        )

    def columns(self, layers: Sequence[Layer]) -> Tensor:
        """Return the terms of these layers, float64 [4, layers, 1]; 0 for those that the runtime folds away."""
        rows = [self.terms.get(layer.name, NO_TERMS) for layer in layers]
        return torch.tensor(rows, dtype=torch.float64).T[:, :, None]

    def seconds(self, graph: ChannelGraph) -> float:
        """Return what a network takes."""
        inputs, outputs = (
            torch.tensor([[len(side)] for side in sides], dtype=torch.float64)
            for sides in zip(
                *((layer.inputs, layer.outputs) for layer in graph.layers), strict=True
            )
        )
        return float(self.total(self.columns(graph.layers), inputs, outputs))

    def total(self, columns: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Return the seconds [widths] of layers that read and make so many channels [layers, widths]."""
        smooth = _smooth(columns, inputs, outputs, self.grain)
        return self.rest + (smooth + torch.where(_ragged(inputs), columns[-1] * inputs, 0.0)).sum(0)


NO_TIME = LatencyModel(1, {}, 0.0)
"""Where nothing has been measured."""

DENSE_WEIGHT, DEPTHWISE_WEIGHT = 10.0, 25.0
DEPTHWISE_MAC = 3.0
DEPTHWISE_OUTPUT = 20.0
RAGGED = {"dense": (4e3, 60.0), "grouped": (16e3, 190.0)}
"""What layers cost beside the multiply-accumulates of dense ones, in such multiply-accumulates (`typical_latency`).

RAGGED is for each input channel, and for each place of one.
"""


def typical_latency(layers: Sequence[Layer]) -> LatencyModel:
    """Return what layers take on a processor that nobody has measured, in multiply-accumulates of dense layers.

    For one image a weight is read for a few products only, and a depthwise layer moves more than it computes: the
    constants are those that fit the measured tables of seven architectures at 48 and 96 pixels best, for ragged layers
    chains of blocks at 3 to 24 pixels (ONNX Runtime, one thread, x86 with AVX-512). What does not depend on widths is
    left out.
    """
    terms = {}
    for layer in layers:
        ragged = 0.0
        # Images have kernels of their own, and vectors no layout.
        if layer.kind in RAGGED and layer.positions > 1 and len(layer.inputs) >= LANES:
            per_channel, per_place = RAGGED[layer.kind]
            ragged = per_channel + per_place * layer.positions
        if layer.kind == "dense":
            terms[layer.name] = (
                0.0,
                layer.kernel_elements * (layer.positions + DENSE_WEIGHT),
                0.0,
                ragged,
            )
        elif layer.kind == "grouped":
            per_weight = DEPTHWISE_MAC * layer.positions + DEPTHWISE_WEIGHT
            terms[layer.name] = (
                0.0,
                0.0,
                layer.kernel_elements * per_weight + DEPTHWISE_OUTPUT * layer.positions,
                ragged,
            )
    return LatencyModel(1, terms, 0.0)


def learn_latency(
    widths: Mapping[str, int],
    profile: Profile,
    on_progress: Callable[[int, int], None] | None = None,
) -> LatencyModel:
    """Measure a table of narrower networks and fit the curves, each term 0 or more.

    First the grain: the largest number of channels by which all layers can grow at no more cost than by fewer, from
    multiples of the coarsest grain on. Then networks of seven widths, rounded to it.
    """
    total, done = 1 + len(GRAINS) + len(SCALES), itertools.count(1)

    def measure(wanted: Mapping[str, int]) -> tuple[Seconds, ChannelGraph]:
        found = profile(wanted)
        if on_progress:
            on_progress(next(done), total)
        return found

    coarse = {
        name: GRAINS[-1] * max(1, round(0.7 * count / GRAINS[-1])) for name, count in widths.items()
    }
    cost = {
        more: sum(measure({name: count + more for name, count in coarse.items()})[0].values())
        for more in (0, *GRAINS)
    }
    rise = cost[GRAINS[-1]] - cost[0]
    grain = max(
        (
            more
            for more in GRAINS
            if cost[more] - min(cost[other] for other in GRAINS if other <= more) <= LEVEL * rise
        ),
        default=GRAINS[0],
    )
    samples = [
        measure({name: _scaled(count, scale, grain) for name, count in widths.items()})
        for scale in SCALES
    ]
    known = {layer.name for layer in samples[0][1].layers}
    rest = [
        sum(value for name, value in seconds.items() if name not in known) for seconds, _ in samples
    ]
    terms = {}
    for position, layer in enumerate(samples[0][1].layers):
        times = [seconds.get(layer.name, 0.0) for seconds, _ in samples]
        if any(times):
            sizes = [
                (len(graph.layers[position].inputs), len(graph.layers[position].outputs))
                for _, graph in samples
            ]
            terms[layer.name] = _fitted(sizes, times, grain, dense=layer.kind == "dense")
    return LatencyModel(grain, terms, sum(rest) / len(rest))


def _scaled(count: int, scale: float, grain: int) -> int:
    """Return a share of a width as a multiple of the grain, not below the floor nor above the width."""
    if scale == 1:
        return count
    least = least_width(count)
    return min(count, max(least, grain * max(1, round(scale * count / grain))))


def _ragged(channels: Tensor) -> Tensor:
    return channels % LANES != 0


def _rounded(channels: Tensor, grain: int) -> Tensor:
    return torch.ceil(channels / grain - 1e-9) * grain


def _smooth(terms: Sequence[Any] | Tensor, inputs: Tensor, outputs: Tensor, grain: int) -> Tensor:
    """Return `a + b I O + c O`, whatever else a to d say of ragged widths."""
    a, b, c, *_ = terms
    made = _rounded(outputs, grain)
    seconds: Tensor = a + b * _rounded(inputs, grain) * made + c * made
    return seconds


def _fitted(
    sizes: Sequence[tuple[int, int]], times: Sequence[float], grain: int, *, dense: bool
) -> Terms:
    """Return the terms of a layer: the curve through the widths that are not ragged, and what the others take more."""
    exact = torch.tensor(sizes, dtype=torch.float64)
    target = torch.tensor(times, dtype=torch.float64)
    ragged = _ragged(exact[:, 0])
    if ragged.sum() > len(times) - FEWEST:
        ragged = torch.zeros_like(ragged)  # Too few others for a curve.
    curve = _curve(exact[~ragged], target[~ragged], grain, dense=dense)
    inputs, outputs = exact.T
    more = (target - _smooth(curve, inputs, outputs, grain)) / inputs
    return *curve, max(0.0, float(more[ragged].mean())) if ragged.any() else 0.0


def _curve(sizes: Tensor, target: Tensor, grain: int, *, dense: bool) -> tuple[float, float, float]:
    """Return the terms (a, b, c), none below 0, that come closest to the times in relative error."""
    inputs, outputs = _rounded(sizes, grain).T
    features = torch.stack(
        [torch.ones_like(outputs), inputs * outputs if dense else 0 * outputs, outputs], 1
    )
    weighted = features / target.clamp(min=1e-9)[:, None]
    best: tuple[float, Tensor] = (float("inf"), torch.zeros(3, dtype=torch.float64))
    # Three terms have seven sets that may be above 0: non-negative least squares by trying all.
    for chosen in itertools.chain.from_iterable(
        itertools.combinations((0, 1, 2), n) for n in (1, 2, 3)
    ):
        columns = weighted[:, chosen]
        found = torch.linalg.lstsq(
            columns, torch.ones(len(target), 1, dtype=torch.float64), driver="gelsd"
        ).solution[:, 0]
        if bool((found < 0).any()):
            continue
        error = float((columns @ found - 1).square().sum())
        if error < best[0] - 1e-12:
            solution = torch.zeros(3, dtype=torch.float64)
            solution[list(chosen)] = found
            best = (error, solution)
    a, b, c = best[1].tolist()
    return a, b, c
