"""Which tensors of a network are integers of how many bits, and what is computed on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from fertool.errors import FertoolError
from fertool.gate_spec import entries_under, profile_prefix
from fertool.strict_json import Name, Text

_MOST_LAYERS = 20_000
Bits = Annotated[int, Meta(ge=2, le=8)]
ActivationBits = Annotated[int, Meta(ge=4, le=8)]
Magnitude = Annotated[int, Meta(ge=1, le=127)]
Speedup = Annotated[float, Meta(ge=1e-6, le=1e6)]

WEIGHT_BITS = (2, 3, 4, 5, 6, 7, 8)
"""Bits that a weight may have."""


@dataclass(frozen=True)
class WeightQuant:
    """Symmetric integers for the weight of one layer, one scale per output channel.

    `bits` has one number per output channel, or a single one for all of them; `limit` is the
    largest magnitude that an 8-bit channel uses: 127, or 63 where pairs of products must fit 16
    bits (processors without VNNI). Raises FertoolError for numbers out of their range.
    """

    bits: Annotated[tuple[Bits, ...], Meta(min_length=1, max_length=65_536)]
    limit: Magnitude = 127

    def __post_init__(self) -> None:
        if not self.bits or not set(self.bits) <= set(WEIGHT_BITS):
            raise FertoolError(
                f"weights of {self.bits} bits: there are 2 to 8 of them", "make the file again"
            )
        # Not isinstance: True is an int.
        if type(self.limit) is not int or not 1 <= self.limit <= 127:
            raise FertoolError(
                f"weights up to {self.limit}: they are within 127", "make the file again"
            )

    def limits(self, channels: int) -> tuple[int, ...]:
        """Return the largest magnitude of the integers of each output channel."""
        bits = self.bits * channels if len(self.bits) == 1 else self.bits
        # Symmetric: the smallest integer of b bits has no positive counterpart and is not used.
        return tuple(min(self.limit, 2 ** (b - 1) - 1) for b in bits)

    def stored_bits(self, channels: int) -> tuple[int, ...]:
        """Return the bits that hold the integers of each output channel."""
        return tuple(limit.bit_length() + 1 for limit in self.limits(channels))


@dataclass(frozen=True)
class ComputeSpec:
    """Which layers compute with floats on integer weights, and what decided it.

    All other layers of integer weights compute on integers. `asked` is the option: of `auto` the
    kernel times of a `processor` in a `runtime` decided, which were in the table or `measured` by
    layer. `expected_speedup` is the time of the float network divided by this one's by those
    times, `measured_speedup` by the clock, of whole files.
    """

    float_layers: Annotated[tuple[Name, ...], Meta(max_length=_MOST_LAYERS)]
    asked: Literal["auto", "float"]
    times: Literal["table", "measured"] | None = None
    processor: Text = ""
    runtime: Text = ""
    expected_speedup: Speedup | None = None
    measured_speedup: Speedup | None = None


@dataclass(frozen=True)
class QuantSpec:
    """The bits of quantized tensors: weights by layer, activations by the name of their quantizer.

    Activations are unsigned, affine, and quantized per tensor. `compute` is there where some layers
    compute with floats, or were considered for it. Raises FertoolError for bits out of their range,
    and for a layer in `compute` that has no integers.
    """

    weights: Annotated[Mapping[Name, WeightQuant], Meta(max_length=_MOST_LAYERS)]
    activations: Annotated[Mapping[Name, ActivationBits], Meta(max_length=_MOST_LAYERS)]
    method: Name = "ptq"
    compute: ComputeSpec | None = None

    def __post_init__(self) -> None:
        wrong: dict[str, int] = {}
        for name, bits in self.activations.items():
            if type(bits) is not int or not 4 <= bits <= 8:
                wrong[name] = bits
        if wrong:
            raise FertoolError(
                f"activations of other than 4 to 8 bits: {wrong}", "make the file again"
            )
        unknown = sorted(self.float_layers - self.weights.keys())
        if unknown:
            raise FertoolError(
                f"{len(unknown)} layers that compute with floats have no integers, "
                f"the first {unknown[0]!r:.60}",
                "make the file again",
            )

    @property
    def float_layers(self) -> frozenset[str]:
        """The layers of integer weights that compute with floats."""
        return frozenset(self.compute.float_layers if self.compute else ())

    @property
    def computes_integers(self) -> bool:
        """Whether some layers compute on integers."""
        return bool(self.weights.keys() - self.float_layers)

    def under(self, prefix: str) -> QuantSpec | None:
        """Return the part whose names begin with `prefix`, without it; None where there is none."""
        weights = entries_under(self.weights, prefix)
        if not weights:
            return None
        compute = self.compute
        if compute is not None:
            own = entries_under(dict.fromkeys(compute.float_layers), prefix)
            compute = replace(compute, float_layers=tuple(own))
        return QuantSpec(weights, entries_under(self.activations, prefix), self.method, compute)

    def to_builtins(self) -> dict[str, Any]:
        """Return what stands in a header: the bits of a layer as one digit for each channel."""
        weights = {}
        for name, rule in self.weights.items():
            # One digit for each of thousands of channels.
            weights[name] = {"bits": "".join(map(str, rule.bits)), "limit": rule.limit}
        data: dict[str, Any] = {
            "weights": weights,
            "activations": dict(self.activations),
            "method": self.method,
        }
        # So that files without it are the same bytes as before there was such a field.
        if self.compute is not None:
            data["compute"] = asdict(self.compute)
        return data


def join_quants(parts: Sequence[QuantSpec | None]) -> QuantSpec | None:
    """Return the parts of the profiles of a dynamic network as one, None where all are float."""
    weights: dict[str, WeightQuant] = {}
    activations: dict[str, int] = {}
    method = None
    computes: list[ComputeSpec | None] = []
    float_layers: list[str] = []
    for index, part in enumerate(parts):
        if part is None:
            continue
        method = method or part.method
        prefix = profile_prefix(index)
        for name, rule in part.weights.items():
            weights[f"{prefix}{name}"] = rule
        for name, bits in part.activations.items():
            activations[f"{prefix}{name}"] = bits
        computes.append(part.compute)
        float_layers += [f"{prefix}{name}" for name in sorted(part.float_layers)]
    if method is None:
        return None
    return QuantSpec(weights, activations, method, _join_computes(computes, float_layers))


def _join_computes(
    parts: Sequence[ComputeSpec | None], float_layers: Sequence[str]
) -> ComputeSpec | None:
    """Return what decided for the parts together: a speedup only where all have the same."""
    found: ComputeSpec | None = None
    for part in parts:
        if part is None:
            continue
        own = replace(part, float_layers=tuple(float_layers))
        if found is not None and own != found:
            return replace(found, expected_speedup=None, measured_speedup=None)
        found = own
    return found


def describe_compute(quant: QuantSpec) -> str:
    """Return in words how many layers of integer weights compute with floats, and why; or ""."""
    compute = quant.compute
    if compute is None:
        return ""
    counts = f"{len(compute.float_layers)} of {len(quant.weights)} layers"
    text = f"{counts} compute with floats on integer weights"
    if compute.asked == "float":
        return text
    speedups = []
    if compute.expected_speedup is not None:
        speedups.append(f"{compute.expected_speedup:.2f}x expected")
    if compute.measured_speedup is not None:
        speedups.append(f"{compute.measured_speedup:.2f}x measured")
    if speedups:
        text += f", {' and '.join(speedups)} against the float network"
    origin = "by the table for" if compute.times == "table" else "measured on"
    where = f"{origin} {compute.processor}, {compute.runtime}"
    return f"{text} ({where}; other kinds of processors were not measured)"
