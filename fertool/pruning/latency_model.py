"""The latency of a network of other widths: measurements of a few networks, and a curve a layer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from fertool.graph.channel_graph import ChannelGraph, Layer
from fertool.pruning.width_candidates import least_width

# Networks in the table, by the fraction of every width that they have.
SCALES = (1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25)
# Multiples of channels among which the runtime's own is looked for, ascending.
GRANULARITIES = (1, 8, 16, 32)
# Layers that read a channel count that is no multiple of this leave a runtime's fast layout.
CHANNEL_ALIGNMENT = 4
# A difference below this fraction of the rise from one multiple of the coarsest granularity to the
# next is noise on a plateau.
PLATEAU_TOLERANCE = 0.12
# A curve has three terms: with fewer networks it would follow their noise.
MIN_SAMPLES = 4
# The sets of terms of a curve that may be above 0, the simplest first.
_TERM_SETS = ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2))

Terms = tuple[float, float, float, float]
NO_TERMS: Terms = (0.0, 0.0, 0.0, 0.0)
Seconds = Mapping[str, float]
"""Of each layer; what belongs to no layer is under another name."""
Profile = Callable[[Mapping[str, int]], tuple[Seconds, ChannelGraph]]
"""Measures the network with some numbers of channels by group; returns its channel graph, too."""


@dataclass(frozen=True, eq=False)
class LatencyModel:
    """Seconds of a network on one machine as a function of its widths.

    A layer takes `a + b I O + c O` with its input and output channels, I and O, rounded up to
    `granularity`; layers that keep their channels take `a + c O`. Where I is misaligned, no
    multiple of CHANNEL_ALIGNMENT, it takes `d I` more. `terms` [4] holds a to d by layer, `rest`
    is what belongs to none.
    """

    granularity: int
    terms: Mapping[str, Terms]
    rest: float

    def for_rounding(self, round_to: int) -> LatencyModel:
        """Return the model by which widths are chosen that change in steps of `round_to`.

        A search by single channels could not step past misaligned widths, which take longer, so
        that it has them at no price.
        """
        if round_to % CHANNEL_ALIGNMENT == 0:
            return self
        terms = {name: (a, b, c, 0.0) for name, (a, b, c, _) in self.terms.items()}
        return replace(self, terms=terms)

    def terms_of(self, layers: Sequence[Layer]) -> Tensor:
        """Return the terms of layers, float64 [4, layers, 1]; 0 for those folded away."""
        rows = []
        for layer in layers:
            rows.append(self.terms.get(layer.name, NO_TERMS))
        return torch.tensor(rows, dtype=torch.float64).T[:, :, None]

    def seconds(self, graph: ChannelGraph) -> float:
        """Return the latency of a network."""
        inputs, outputs = [], []
        for layer in graph.layers:
            inputs.append([len(layer.inputs)])
            outputs.append([len(layer.outputs)])
        seconds = self.total(
            self.terms_of(graph.layers),
            torch.tensor(inputs, dtype=torch.float64),
            torch.tensor(outputs, dtype=torch.float64),
        )
        return float(seconds)

    def total(self, terms: Tensor, inputs: Tensor, outputs: Tensor) -> Tensor:
        """Return the seconds [widths] of layers with these channel counts [layers, widths].

        `terms` are those of the layers, [4, layers, 1].
        """
        aligned = _aligned_seconds(terms, inputs, outputs, self.granularity)
        misaligned = torch.where(_is_misaligned(inputs), terms[-1] * inputs, 0.0)
        return self.rest + (aligned + misaligned).sum(0)


# Where nothing has been measured.
NO_LATENCY = LatencyModel(1, {}, 0.0)

# The costs of layers beside the multiply-accumulates of dense ones, in units of such
# multiply-accumulates: `typical_latency` has their source.
DENSE_WEIGHT, DEPTHWISE_WEIGHT = 10.0, 25.0
DEPTHWISE_MAC = 3.0
DEPTHWISE_OUTPUT = 20.0
# Of misaligned layers, for each input channel and for each of its positions.
MISALIGNED = {"dense": (4e3, 60.0), "grouped": (16e3, 190.0)}


def typical_latency(layers: Sequence[Layer]) -> LatencyModel:
    """Return the latency of layers on an unknown processor, in multiply-accumulates.

    For one image a weight is read for a few products only, and a depthwise layer moves more data
    than it computes: the constants are those that fit the measured tables of seven architectures at
    48 and 96 pixels best, for misaligned layers chains of blocks at 3 to 24 pixels (ONNX Runtime,
    one thread, x86 with AVX-512). What does not depend on widths is left out.
    """
    terms = {}
    for layer in layers:
        misaligned = _typical_misaligned(layer)
        if layer.kind == "dense":
            per_pair = layer.kernel_elements * (layer.positions + DENSE_WEIGHT)
            terms[layer.name] = (0.0, per_pair, 0.0, misaligned)
        elif layer.kind == "grouped":
            per_weight = DEPTHWISE_MAC * layer.positions + DEPTHWISE_WEIGHT
            per_output = layer.kernel_elements * per_weight + DEPTHWISE_OUTPUT * layer.positions
            terms[layer.name] = (0.0, 0.0, per_output, misaligned)
    return LatencyModel(1, terms, 0.0)


def _typical_misaligned(layer: Layer) -> float:
    """Return what each channel costs that a layer with misaligned channels reads."""
    # Images have kernels of their own, and vectors no layout.
    if layer.kind not in MISALIGNED or layer.positions <= 1:
        return 0.0
    if len(layer.inputs) < CHANNEL_ALIGNMENT:
        return 0.0
    per_channel, per_position = MISALIGNED[layer.kind]
    return per_channel + per_position * layer.positions


def learn_latency(
    widths: Mapping[str, int],
    profile: Profile,
    on_progress: Callable[[int, int], None] | None = None,
) -> LatencyModel:
    """Measure a table of narrower networks and fit the curves, each term 0 or more.

    First the granularity: the largest number of channels by which all layers can grow at no more
    cost than by fewer, from multiples of the coarsest one on. Then networks of seven widths,
    rounded to it.
    """
    total = 1 + len(GRANULARITIES) + len(SCALES)
    done = itertools.count(1)

    def measure(wanted: Mapping[str, int]) -> tuple[Seconds, ChannelGraph]:
        found = profile(wanted)
        if on_progress:
            on_progress(next(done), total)
        return found

    granularity = _find_granularity(widths, measure)
    samples = []
    for scale in SCALES:
        narrow = {name: _scaled(count, scale, granularity) for name, count in widths.items()}
        samples.append(measure(narrow))
    terms = _fit_layers(samples, granularity)
    return LatencyModel(granularity, terms, _mean_rest(samples))


def _find_granularity(widths: Mapping[str, int], measure: Profile) -> int:
    """Return the multiple of channels in which the runtime works."""
    coarsest = GRANULARITIES[-1]
    # Multiples of the coarsest granularity, at which the steps of all finer ones begin.
    base = {}
    for name, count in widths.items():
        base[name] = coarsest * max(1, round(0.7 * count / coarsest))

    cost = {}
    for more in (0, *GRANULARITIES):
        seconds, _ = measure({name: count + more for name, count in base.items()})
        cost[more] = sum(seconds.values())

    rise = cost[coarsest] - cost[0]
    granularity, cheapest = GRANULARITIES[0], math.inf
    for more in GRANULARITIES:
        cheapest = min(cheapest, cost[more])
        if cost[more] - cheapest <= PLATEAU_TOLERANCE * rise:
            granularity = more
    return granularity


def _scaled(count: int, scale: float, granularity: int) -> int:
    """Return a fraction of a width, rounded to the granularity, not below the floor."""
    if scale == 1:
        return count
    rounded = granularity * max(1, round(scale * count / granularity))
    return min(count, max(least_width(count), rounded))


def _fit_layers(
    samples: Sequence[tuple[Seconds, ChannelGraph]], granularity: int
) -> dict[str, Terms]:
    """Return the terms of each layer that took time in a measured network."""
    terms = {}
    _, first = samples[0]
    for position, layer in enumerate(first.layers):
        times, sizes = [], []
        for seconds, graph in samples:
            times.append(seconds.get(layer.name, 0.0))
            same = graph.layers[position]
            sizes.append((len(same.inputs), len(same.outputs)))
        if not any(times):
            continue
        terms[layer.name] = _fit_terms(sizes, times, granularity, dense=layer.kind == "dense")
    return terms


def _mean_rest(samples: Sequence[tuple[Seconds, ChannelGraph]]) -> float:
    """Return the mean of the seconds that belong to no layer."""
    known = samples[0][1].by_name
    total = 0.0
    for seconds, _ in samples:
        total += sum(value for name, value in seconds.items() if name not in known)
    return total / len(samples)


def _is_misaligned(channels: Tensor) -> Tensor:
    return channels % CHANNEL_ALIGNMENT != 0


def _rounded_up(channels: Tensor, granularity: int) -> Tensor:
    # Counts are sums of products of floats: 8.0000001 is still 8 channels.
    return torch.ceil(channels / granularity - 1e-9) * granularity


def _aligned_seconds(
    terms: Sequence[Any] | Tensor, inputs: Tensor, outputs: Tensor, granularity: int
) -> Tensor:
    """Return `a + b I O + c O`, the seconds without those of misaligned channels."""
    a, b, c, *_ = terms
    inputs = _rounded_up(inputs, granularity)
    outputs = _rounded_up(outputs, granularity)
    seconds: Tensor = a + b * inputs * outputs + c * outputs
    return seconds


def _fit_terms(
    sizes: Sequence[tuple[int, int]], times: Sequence[float], granularity: int, *, dense: bool
) -> Terms:
    """Return the terms of a layer: the curve through aligned widths, and the cost of others."""
    exact = torch.tensor(sizes, dtype=torch.float64)
    target = torch.tensor(times, dtype=torch.float64)
    misaligned = _is_misaligned(exact[:, 0])
    if misaligned.sum() > len(times) - MIN_SAMPLES:
        # Too few others for a curve.
        misaligned = torch.zeros_like(misaligned)
    a, b, c = _fit_curve(exact[~misaligned], target[~misaligned], granularity, dense=dense)
    if not misaligned.any():
        return a, b, c, 0.0

    inputs, outputs = exact.T
    more = (target - _aligned_seconds((a, b, c), inputs, outputs, granularity)) / inputs
    return a, b, c, max(0.0, float(more[misaligned].mean()))


def _fit_curve(
    sizes: Tensor, target: Tensor, granularity: int, *, dense: bool
) -> tuple[float, float, float]:
    """Return the terms (a, b, c), none below 0, that are closest to the times in relative error."""
    inputs, outputs = _rounded_up(sizes, granularity).T
    products = inputs * outputs if dense else 0 * outputs
    features = torch.stack([torch.ones_like(outputs), products, outputs], 1)
    weighted = features / target.clamp(min=1e-9)[:, None]
    ones = torch.ones(len(target), 1, dtype=torch.float64)

    best_error = math.inf
    best = torch.zeros(3, dtype=torch.float64)
    # Non-negative least squares by trying all seven sets of terms that may be above 0.
    for chosen in _TERM_SETS:
        columns = weighted[:, chosen]
        # A layer that keeps its channels has a column of zeros: the driver must allow for that.
        found = torch.linalg.lstsq(columns, ones, driver="gelsd").solution[:, 0]
        if bool((found < 0).any()):
            continue
        error = float((columns @ found - 1).square().sum())
        # A later set must be better by more than rounding: of equal curves the simplest.
        if error < best_error - 1e-12:
            best_error = error
            best = torch.zeros(3, dtype=torch.float64)
            best[list(chosen)] = found
    a, b, c = best.tolist()
    return a, b, c
