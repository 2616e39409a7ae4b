"""Observers of activations, and the quantization parameters of activations and weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fertool.errors import unknown_name
from fertool.models.quantized import dequantize, per_channel, quantize
from fertool.models.quantizer_points import GATE_KNEE

ACTIVATION_METHODS = ("min-max", "percentile", "mse")
WEIGHT_METHODS = ("min-max", "mse")
BINS = 2048
# Ranges that `mse` compares: for each channel of weights, and for each end of activations, which
# have longer tails.
_WEIGHT_RANGES = 31
_ACTIVATION_RANGES = 65


@dataclass(frozen=True)
class QParams:
    """Unsigned affine quantization: the integer q stands for `(q - zero_point) * scale`.

    Jacob et al. 2018, arXiv 1712.05877, equation 1.
    """

    scale: float
    zero_point: int


class RangeObserver(nn.Module):
    """Keeps the smallest and the largest value that has passed, zero included.

    Values beyond the two `ends` count as these.
    """

    def __init__(self, ends: tuple[float, float] | None = None) -> None:
        super().__init__()
        self.low, self.high = 0.0, 0.0
        self.ends = ends

    def forward(self, values: Tensor) -> Tensor:
        """Return the values unchanged."""
        seen = values if self.ends is None else values.clamp(*self.ends)
        low, high = torch.aminmax(seen)
        # Python's min and max would lose a NaN.
        self.low = torch.minimum(low.cpu(), torch.tensor(self.low)).item()
        self.high = torch.maximum(high.cpu(), torch.tensor(self.high)).item()
        return values


class HistogramObserver(nn.Module):
    """Counts the values that pass in equal bins between two bounds: `counts` float64 [BINS]."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = low, high
        self.counts = torch.zeros(BINS, dtype=torch.float64)

    def forward(self, values: Tensor) -> Tensor:
        """Return the values unchanged."""
        if self.high > self.low:
            counts = torch.histc(values.float(), BINS, self.low, self.high)
            self.counts += counts.double().cpu()
        return values


def activation_qparams(
    observer: HistogramObserver, method: str, bits: int = 8, percentile: float = 99.99
) -> QParams:
    """Return the quantization of the observed activations.

    `min-max` covers all values; `percentile` leaves `100 - percentile` per cent of them outside, at
    the top where none is negative and half at each end otherwise; `mse` takes the range with the
    least mean squared error, rounding and saturation together. The methods are compared by Nagel et
    al. 2021, arXiv 2106.08295, section 3.1. Raises UsageError for another method.
    """
    low, high = _range(observer, method, bits, percentile)
    if not low < high:
        return QParams(1.0, 0)
    # Rounded to float32, as files hold it, before the zero point depends on it.
    scale = torch.tensor((high - low) / (2**bits - 1)).item()
    zero_point = min(max(round(-low / scale), 0), 2**bits - 1)
    return QParams(scale, zero_point)


def gated_qparams(
    observer: HistogramObserver,
    ends: tuple[float, float],
    method: str,
    bits: int = 8,
    percentile: float = 99.99,
) -> QParams:
    """Return the quantization of values that only HardSigmoid and HardSwish with these `ends` read.

    It has n steps of 3 / n below zero, n chosen by the same methods. Where the upper end is 3, n is
    at least half of the integers, so that the last value, one step before 3, is the last that makes
    a difference: a HardSigmoid that needs no clipping.
    """
    least = 1 if ends[1] > GATE_KNEE else 2 ** (bits - 1)
    steps = torch.arange(least, 2**bits, dtype=torch.float64)
    highs = GATE_KNEE * (2**bits - 1 - steps) / steps
    if method == "mse":
        lows = torch.full_like(steps, -GATE_KNEE)
        best = _squared_errors(observer, lows, highs, bits).argmin()
    else:
        # The finest that still covers the range; the coarsest where none does.
        wanted = min(_range(observer, method, bits, percentile)[1], highs[0].item())
        best = (highs >= wanted).sum() - 1
    zero_point = int(steps[best])
    # Rounded to float32, as files hold it.
    scale = torch.tensor(GATE_KNEE / zero_point).item()
    return QParams(scale, zero_point)


def weight_scales(
    weight: Tensor, limits: Tensor, method: str, importance: Tensor | None = None
) -> Tensor:
    """Return one scale per output channel, float32 [out], for integers within ± `limits` [out].

    `min-max` represents the largest magnitude exactly; `mse` also tries smaller ranges, 0.4 to 1 of
    it, and takes the one with the least squared error in each channel, weighted by the `importance`
    [out, fan-in] of inputs. A channel of zeros gets scale 0. Raises UsageError for another method.
    """
    if method not in WEIGHT_METHODS:
        raise unknown_name("weight range", method, WEIGHT_METHODS)
    rows = weight.detach().float().flatten(1)
    full = rows.abs().amax(dim=1) / limits.float()
    if method == "min-max":
        return full

    best = full
    least_error = torch.full_like(full, torch.inf)
    factor = 1.0 if importance is None else importance.float()
    for fraction in torch.linspace(1.0, 0.4, _WEIGHT_RANGES):
        scale = full * fraction
        rounded = dequantize(integer_weight(rows, scale, limits), per_channel(scale, rows))
        error = ((rounded - rows).square() * factor).sum(dim=1)
        best = torch.where(error < least_error, scale, best)
        least_error = torch.minimum(error, least_error)
    return best


def integer_weight(weight: Tensor, scale: Tensor, limits: Tensor) -> Tensor:
    """Return the weight [out, ...] as integers within ± `limits` [out], held in floats."""
    bound = per_channel(limits.to(weight.dtype), weight)
    divisor = per_channel(torch.where(scale > 0, scale, 1.0), weight)
    integers = quantize(weight, divisor, 0, -128, 127)
    return torch.minimum(torch.maximum(integers, -bound), bound)


def _range(
    observer: HistogramObserver, method: str, bits: int, percentile: float
) -> tuple[float, float]:
    """Return the range that the integers cover."""
    if method not in ACTIVATION_METHODS:
        raise unknown_name("activation range", method, ACTIVATION_METHODS)
    if method == "min-max" or observer.low == observer.high:
        return observer.low, observer.high
    if method == "percentile":
        return _central_range(observer, percentile / 100)
    return _least_error_range(observer, bits)


def _central_range(observer: HistogramObserver, fraction: float) -> tuple[float, float]:
    """Return the range that holds a fraction of the values, to within a bin; zero included."""
    below = observer.counts.cumsum(0) / observer.counts.sum()
    edges = torch.linspace(observer.low, observer.high, BINS + 1, dtype=torch.float64)
    outside, first = 1 - fraction, 0
    if observer.low < 0:
        outside = outside / 2
        first = int(torch.searchsorted(below, outside))
    # The margin keeps a fraction of 1 from missing the last bin by rounding.
    last = int(torch.searchsorted(below, 1 - outside - 1e-12))
    low = edges[first].item()
    high = edges[min(last, BINS - 1) + 1].item()
    return min(low, 0.0), max(high, 0.0)


def _least_error_range(observer: HistogramObserver, bits: int) -> tuple[float, float]:
    """Shrink one end of the range, then the other, then each once more.

    The tails hardly depend on each other, so that two rounds are enough.
    """
    low = torch.tensor([observer.low], dtype=torch.float64)
    high = torch.tensor([observer.high], dtype=torch.float64)
    fractions = torch.linspace(1.0, 0.2, _ACTIVATION_RANGES, dtype=torch.float64)
    rounds = 2 if observer.low < 0 < observer.high else 1
    for _ in range(rounds):
        if observer.high > 0:
            ends = observer.high * fractions
            high = ends[_squared_errors(observer, low, ends, bits).argmin()]
        if observer.low < 0:
            ends = observer.low * fractions
            low = ends[_squared_errors(observer, ends, high, bits).argmin()]
    return low.item(), high.item()


def _squared_errors(observer: HistogramObserver, low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Return the error of each range, float64 [ranges], with the values of a bin at its center."""
    scale = ((high - low) / (2**bits - 1)).unsqueeze(-1)
    zero_point = torch.round(-low.unsqueeze(-1) / scale)
    bin_width = (observer.high - observer.low) / BINS
    centers = observer.low + bin_width * (torch.arange(BINS, dtype=torch.float64) + 0.5)
    integers = quantize(centers, scale, zero_point, 0, 2**bits - 1)
    error = (integers - zero_point) * scale - centers
    return torch.mv(error.square(), observer.counts)
