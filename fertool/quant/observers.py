"""How large activations and weights get, and which range of them the integers should cover."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.errors import unknown_name
from fertool.models.quantized import dequantize, per_channel, quantize
from fertool.models.sites import GATE_KNEE

ACTIVATION_METHODS = ("min-max", "percentile", "mse")
WEIGHT_METHODS = ("min-max", "mse")
BINS = 2048
_FRACTIONS_OF_WEIGHT = 31


@dataclass(frozen=True)
class Grid:
    """An unsigned affine grid: the integer q stands for `(q - zero_point) * scale`."""

    scale: float
    zero_point: int


class RangeObserver(nn.Module):
    """Remembers the smallest and the largest value that has passed, zero included, but none beyond the `ends`."""

    def __init__(self, ends: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.low, self.high = 0.0, 0.0
        self.ends = ends

    def forward(self, values: Tensor) -> Tensor:
        """Return the values as they came."""
        seen = values if self.ends is None else values.clamp(*self.ends)
        low, high = (end.cpu() for end in torch.aminmax(seen))
        # Python's min and max would lose a NaN.
        self.low = torch.minimum(low, torch.tensor(self.low)).item()
        self.high = torch.maximum(high, torch.tensor(self.high)).item()
        return values


class HistogramObserver(nn.Module):
    """Counts the values that pass in equal bins between two bounds: `counts` float64 [BINS]."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values as they came."""
        if self.high > self.low:
            self.counts += torch.histc(values.float(), BINS, self.low, self.high).double().cpu()
        return values


def activation_grid(
    seen: HistogramObserver, method: str, bits: int = 8, percentile: float = 99.99
) -> Grid:
    """Return the grid that covers what was seen.

    `min-max` covers everything; `percentile` leaves `100 - percentile` per cent of the values outside, at the top where
    none is negative and half at each end otherwise; `mse` takes the range with the least mean squared error, rounding
    and saturation together. Raises UsageError for another method.
    """
    low, high = _range(seen, method, bits, percentile)
    return _grid(low, high, bits) if low < high else Grid(1.0, 0)


def gated_grid(
    seen: HistogramObserver,
    ends: tuple[float, float],
    method: str,
    bits: int = 8,
    percentile: float = 99.99,
) -> Grid:
    """Return the grid of a gated site with these `ends`: n steps of 3 / n below zero, chosen by the same methods.

    Where the upper end is 3, n is at least half of the grid, so that its last value, one step before 3, is the last
    that makes a difference: a HardSigmoid that needs no clipping.
    """
    least = 1 if ends[1] > GATE_KNEE else 2 ** (bits - 1)
    steps = torch.arange(least, 2**bits, dtype=torch.float64)
    highs = GATE_KNEE * (2**bits - 1 - steps) / steps
    if method == "mse":
        best = _squared_errors(seen, torch.full_like(steps, -GATE_KNEE), highs, bits).argmin()
    else:
        best = (highs >= min(_range(seen, method, bits, percentile)[1], highs[0].item())).sum() - 1
    below = int(steps[best])
    return Grid(torch.tensor(GATE_KNEE / below).item(), below)


def weight_scales(
    weight: Tensor, limits: Tensor, method: str, importance: Tensor | None = None
) -> Tensor:
    """Return one scale per output channel, float32 [out], for integers within plus and minus `limits` [out].

    `min-max` represents the largest magnitude exactly; `mse` also tries smaller ranges, 0.4 to 1 of it, and takes the
    one with the least squared error in each channel, weighted by the `importance` [out, fan-in] of inputs. A channel
    of zeros gets scale 0. Raises UsageError for another method.
    """
    if method not in WEIGHT_METHODS:
        raise unknown_name("weight range", method, WEIGHT_METHODS)
    rows, bound = weight.detach().float().flatten(1), limits.float()
    best = rows.abs().amax(dim=1) / bound
    if method == "min-max":
        return best
    full, least = best, torch.full_like(best, torch.inf)
    factor = 1.0 if importance is None else importance.float()
    for fraction in torch.linspace(1.0, 0.4, _FRACTIONS_OF_WEIGHT):
        scale = full * fraction
        integers = integer_weight(rows, scale, limits)
        error = ((dequantize(integers, per_channel(scale, rows)) - rows).square() * factor).sum(
            dim=1
        )
        best, least = torch.where(error < least, scale, best), torch.minimum(error, least)
    return best


def integer_weight(weight: Tensor, scale: Tensor, limits: Tensor) -> Tensor:
    """Return the weight [out, ...] as integers within plus and minus `limits` [out], held in floats."""
    bound = per_channel(limits.to(weight.dtype), weight)
    divisor = per_channel(torch.where(scale > 0, scale, 1.0), weight)
    return torch.minimum(torch.maximum(quantize(weight, divisor, 0, -128, 127), -bound), bound)


def _range(
    seen: HistogramObserver, method: str, bits: int, percentile: float
) -> tuple[float, float]:
    if method not in ACTIVATION_METHODS:
        raise unknown_name("activation range", method, ACTIVATION_METHODS)
    if method == "min-max" or seen.low == seen.high:
        return seen.low, seen.high
    return (
        _central_range(seen, percentile / 100)
        if method == "percentile"
        else _least_error_range(seen, bits)
    )


def _grid(low: float, high: float, bits: int) -> Grid:
    scale = torch.tensor((high - low) / (2**bits - 1)).item()
    return Grid(scale, min(max(round(-low / scale), 0), 2**bits - 1))


def _central_range(seen: HistogramObserver, share: float) -> tuple[float, float]:
    below = seen.counts.cumsum(0) / seen.counts.sum()
    edges = torch.linspace(seen.low, seen.high, BINS + 1, dtype=torch.float64)
    outside = (1 - share) / (2 if seen.low < 0 else 1)
    first = int(torch.searchsorted(below, outside)) if seen.low < 0 else 0
    last = int(torch.searchsorted(below, 1 - outside - 1e-12))
    return min(edges[first].item(), 0.0), max(edges[min(last, BINS - 1) + 1].item(), 0.0)


def _least_error_range(seen: HistogramObserver, bits: int) -> tuple[float, float]:
    """Shrink one end of the range, then the other, then each once more: the tails hardly depend on each other."""
    low, high = torch.tensor([[seen.low], [seen.high]], dtype=torch.float64)
    shrunken = torch.linspace(1.0, 0.2, 65, dtype=torch.float64)
    for _ in range(2 if seen.low < 0 < seen.high else 1):
        ends = seen.high * shrunken
        high = ends[_squared_errors(seen, low, ends, bits).argmin()] if seen.high > 0 else high
        ends = seen.low * shrunken
        low = ends[_squared_errors(seen, ends, high, bits).argmin()] if seen.low < 0 else low
    return low.item(), high.item()


def _squared_errors(seen: HistogramObserver, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Return the error of each range, float64 [ranges], with the values of a bin at its centre."""
    scale = ((high - low) / (2**bits - 1)).unsqueeze(-1)
    zero_point = torch.round(-low.unsqueeze(-1) / scale)
    centres = seen.low + (seen.high - seen.low) / BINS * (
        torch.arange(BINS, dtype=torch.float64) + 0.5
    )
    integers = quantize(centres, scale, zero_point, 0, 2**bits - 1)
    error = (integers - zero_point) * scale - centres
    return torch.mv(error.square(), seen.counts)
