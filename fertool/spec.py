"""What a model file says about itself, as plain data: read and checked without torch."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Annotated, Any

from msgspec import Meta

from fertool.checked import (
    Count,
    Fraction,
    Name,
    Positive,
    Text,
    WrongContentError,
    as_type,
    listed,
    missing_keys,
    parse_json,
    refusing,
)
from fertool.errors import FertoolError

FORMAT = 1
"""Version of the header. A reader refuses a newer one and keeps reading the older ones."""

# What the numbers of a header may be: generous for networks that classify images, and nothing that fills a memory.
# docs/artifact.md has them.
LARGEST_SIDE = 1024
"""Pixels of the side of an input."""
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Channels = Annotated[int, Meta(ge=1, le=4)]
Width = Annotated[int, Meta(ge=0, le=65_536)]
Widths = Annotated[Mapping[Name, Width], Meta(max_length=20_000)]
Classes = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=65_536)]
Mean = Annotated[float, Meta(ge=0, le=1)]
Deviation = Annotated[float, Meta(ge=1e-6, le=1e6)]
Bits = Annotated[int, Meta(ge=2, le=8)]
ActivationBits = Annotated[int, Meta(ge=4, le=8)]
Magnitude = Annotated[int, Meta(ge=1, le=127)]
Names = Annotated[Mapping[Name, Text], Meta(max_length=1000)]
Digest = Annotated[str, Meta(max_length=128)]
_MOST_STEPS = 1000
MOST_PIXELS = 1 << 22
"""Positions of all images of a batch: 4 of 1024 x 1024, 83 of 224 x 224."""


def affordable_batch(wanted: int, size: int) -> int:
    """Return `wanted` images, or as many of them as one batch may have where their side has `size` pixels.

    The maps of a network grow with its input, whose size a small file is free to state.
    """
    return max(1, min(wanted, MOST_PIXELS // size**2))


@dataclass(frozen=True)
class InputSpec:
    """What a model expects: square images and `(pixel / 255 - mean) / std` for each channel.

    `mean` is a multiple of 1/255, so that the same map is an ONNX DequantizeLinear of uint8 pixels with an integer
    zero point: an INT8 network takes raw pixels without a rounding of its own.
    """

    channels: Channels = 1
    size: Side = 48
    mean: tuple[Mean, ...] = (129 / 255,)
    std: tuple[Deviation, ...] = (64 / 255,)

    def __post_init__(self) -> None:
        if not (len(self.mean) == len(self.std) == self.channels):
            raise FertoolError(
                f"input has {self.channels} channels but {len(self.mean)} means and {len(self.std)} deviations",
                "give one mean and one deviation per channel",
            )
        if any(abs(m * 255 - round(m * 255)) > 1e-6 for m in self.mean):
            raise FertoolError(f"input mean {self.mean} is not a multiple of 1/255", "round mean x 255 to an integer")

    @property
    def zero_point(self) -> tuple[int, ...]:
        """The pixel value (0 to 255) that maps to 0, one per channel."""
        return tuple(round(m * 255) for m in self.mean)

    @property
    def scale(self) -> tuple[float, ...]:
        """What one grey level is worth after normalisation, one per channel."""
        return tuple(1 / (255 * s) for s in self.std)


WIDTHS = (2, 3, 4, 5, 6, 7, 8)
"""Bits that a weight may have."""
_LONGEST_TABLE = 16 << 20
"""Bytes of the unpacked table of bits, so that a small file cannot fill the memory."""


@dataclass(frozen=True)
class WeightQuant:
    """Symmetric integers for the weight of one layer, one scale per output channel.

    `bits` holds one width per output channel, or a single one for all of them; `limit` is the largest magnitude that
    an 8-bit channel uses: 127, or 63 where pairs of products must fit 16 bits (processors without VNNI).
    """

    bits: Annotated[tuple[Bits, ...], Meta(min_length=1, max_length=65_536)]
    limit: Magnitude = 127

    def __post_init__(self) -> None:
        if not self.bits or not set(self.bits) <= set(WIDTHS):
            raise FertoolError(f"weights of {self.bits} bits: there are 2 to 8 of them", "make the file again")
        if type(self.limit) is not int or not 1 <= self.limit <= 127:
            raise FertoolError(f"weights up to {self.limit}: they are within 127", "make the file again")

    def limits(self, channels: int) -> tuple[int, ...]:
        """Return the largest magnitude of the integers of each output channel."""
        bits = self.bits * channels if len(self.bits) == 1 else self.bits
        return tuple(min(self.limit, 2 ** (b - 1) - 1) for b in bits)

    def stored_bits(self, channels: int) -> tuple[int, ...]:
        """Return the bits that hold the integers of each output channel."""
        return tuple(limit.bit_length() + 1 for limit in self.limits(channels))


@dataclass(frozen=True)
class QuantSpec:
    """Which tensors are integers: weights by layer name, activations (unsigned, affine, per tensor) by site name."""

    weights: Annotated[Mapping[Name, WeightQuant], Meta(max_length=20_000)]
    activations: Annotated[Mapping[Name, ActivationBits], Meta(max_length=20_000)]
    method: Name = "ptq"

    def __post_init__(self) -> None:
        wrong = {name: bits for name, bits in self.activations.items() if type(bits) is not int or not 4 <= bits <= 8}
        if wrong:
            raise FertoolError(f"activations of other than 4 to 8 bits: {wrong}", "make the file again")


@dataclass(frozen=True)
class GateSpec:
    """A dynamic network: the widths of its profiles, the widest first, and the units of its gate's hidden layer.

    `shares` is the part of the images that each profile got, on those that `metrics` speaks of.
    """

    profiles: Annotated[tuple[Widths, ...], Meta(min_length=1, max_length=16)]
    hidden: Annotated[int, Meta(ge=1, le=4096)]
    shares: tuple[Fraction, ...]


@dataclass(frozen=True)
class Metrics:
    """A measured accuracy and what it was measured on; `accuracy_ci95` is the Wilson 95 % interval."""

    split: Name
    n: Positive
    accuracy: Fraction
    accuracy_ci95: tuple[Fraction, Fraction]
    macro_f1: Fraction


@dataclass(frozen=True)
class Step:
    """One command in the life of a model: its options and the digests of all that it read."""

    command: Name
    options: Annotated[Mapping[Name, Any], Meta(max_length=1000)] = field(default_factory=dict)
    inputs: Names = field(default_factory=dict)
    versions: Names = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Spec:
    """The header of a model file; see the section on the artifact in docs/artifact.md."""

    arch: Name
    arch_args: Annotated[Mapping[Name, Any], Meta(max_length=100)]
    widths: Widths
    input: InputSpec
    classes: Classes
    params: Count = 0
    macs: Count = 0
    gates: GateSpec | None = None
    quant: QuantSpec | None = None
    metrics: Metrics | None = None
    provenance: Annotated[tuple[Step, ...], Meta(max_length=_MOST_STEPS)] = ()
    digest: Digest = ""
    format: int = FORMAT

    def with_step(self, step: Step, **changes: Any) -> Spec:
        """Return the spec of the next file in the chain: `changes` applied and `step` appended to the provenance."""
        return replace(self, provenance=(*self.provenance, step), digest="", **changes)

    def require_static(self, step: str) -> None:
        """Raise FertoolError for a dynamic network, saying that it cannot be what `step` says."""
        if self.gates is not None:
            raise FertoolError(
                f"a dynamic network, of {len(self.gates.profiles)} profiles, cannot be {step}",
                "give the model that it was made from",
            )

    def to_json(self, *, deflated: bool = False) -> str:
        """Return the canonical text: sorted keys, no spaces, the same bytes for the same content.

        `deflated` makes the table of bits under `quant`, most of the header of a small network, a third as long: its
        own JSON behind zlib and base85.
        """
        data = asdict(self)
        for entry in (data["quant"] or {"weights": {}})["weights"].values():
            # One letter for each of thousands of channels.
            entry["bits"] = "".join(map(str, entry["bits"]))
        if data["quant"] and deflated:
            table = zlib.compress(canonical_json(data["quant"]).encode(), level=9)
            data["quant"] = base64.b85encode(table).decode()
        return canonical_json(data)

    @classmethod
    def from_json(cls, text: str, where: str) -> Spec:
        """Read a header; raises FertoolError naming `where` for a newer format, missing keys or wrong types."""
        data, kind, version = read_header_text(text, where)
        if kind != "model":
            raise FertoolError(
                f"{where}: a {kind} file, not a model",
                "give a model file, .pt or .onnx; logits stand for teachers in distill",
            )
        if version != FORMAT:
            raise FertoolError(
                f"{where}: header format {version}, this fertool reads format {FORMAT}", "install a newer fertool"
            )
        require_keys(data, cls, where)
        with refusing(where, DAMAGED, "make the file again"):
            spec = as_type({**data, "quant": _unpacked_quant(data.get("quant"))}, cls, known_only=True)
            _require_consistent(spec)
        return spec


DAMAGED = "the fertool header is damaged"


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_header_text(text: str, where: str) -> tuple[dict[str, Any], str, int]:
    """Return a header's fields, the kind of file and the version of its format; raises FertoolError naming `where`."""
    with refusing(where, "the fertool header is not readable", "make the file again"):
        data = parse_json(text)
        start = as_type(data, _Start)
    return data, start.kind, start.format


@dataclass(frozen=True)
class _Start:
    """What tells what the rest of a header is."""

    format: int
    kind: Name = "model"


def require_keys(data: Mapping[str, Any], kind: type[Any], where: str) -> None:
    """Raise FertoolError unless a header has all keys that `kind` has no default for, and only such as it knows."""
    known = {entry.name for entry in fields(kind)}
    wrong = sorted([*(set(data) - known), *missing_keys(data, kind)])
    if wrong:
        raise FertoolError(f"{where}: header keys missing or unknown: {listed(wrong)}", "make the file again")


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _require_consistent(spec: Spec) -> None:
    """Raise WrongContentError for parts of a header that do not fit each other."""
    if len(set(spec.classes)) < len(spec.classes):
        raise WrongContentError("`classes` has a name twice")
    metrics, gates = spec.metrics, spec.gates
    if metrics:
        low, high = metrics.accuracy_ci95
        if not low <= metrics.accuracy <= high:
            raise WrongContentError(f"`metrics.accuracy` is {metrics.accuracy}, outside of its interval")
    if gates:
        if len(gates.shares) != len(gates.profiles):
            raise WrongContentError(f"`gates` has {len(gates.profiles)} profiles and {len(gates.shares)} shares")
        if any(set(profile) != set(spec.widths) for profile in gates.profiles):
            raise WrongContentError("`gates.profiles` has other keys than `widths`")


def _unpacked_quant(data: Any) -> Any:
    """Return what a header has under `quant` with the bits of each layer as a list; what is not as it should be stays.

    In an ONNX file it is a text: the same JSON behind zlib and base85.
    """
    if isinstance(data, str):
        try:
            packed = base64.b85decode(data)
            text = zlib.decompressobj().decompress(packed, _LONGEST_TABLE)
        except (ValueError, zlib.error) as error:
            raise WrongContentError(f"`quant` does not unpack ({error})") from None
        data = parse_json(text)
    if not isinstance(data, dict) or not isinstance(data.get("weights"), dict):
        return data
    return {**data, "weights": {name: _unpacked_bits(rule) for name, rule in data["weights"].items()}}


def _unpacked_bits(rule: Any) -> Any:
    """Return the rule of a layer with its letter for each channel as a list of numbers."""
    bits = rule.get("bits") if isinstance(rule, dict) else None
    if not isinstance(bits, str) or not (bits.isascii() and bits.isdigit()):
        return rule
    return {**rule, "bits": [int(digit) for digit in bits]}
