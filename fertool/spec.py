"""What a model file says about itself, as plain data: read and checked without torch."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from fertool.errors import FertoolError

FORMAT = 1
"""Version of the header. A reader refuses a newer one and keeps reading the older ones."""


@dataclass(frozen=True)
class InputSpec:
    """What a model expects: square images and `(pixel / 255 - mean) / std` for each channel.

    `mean` is a multiple of 1/255, so that the same map is an ONNX DequantizeLinear of uint8 pixels with an integer
    zero point: an INT8 network takes raw pixels without a rounding of its own.
    """

    channels: int = 1
    size: int = 48
    mean: tuple[float, ...] = (129 / 255,)
    std: tuple[float, ...] = (64 / 255,)

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
_LONGEST_TABLE = 64 << 20
"""Bytes of the unpacked table of bits, so that a small file cannot fill the memory."""


@dataclass(frozen=True)
class WeightQuant:
    """Symmetric integers for the weight of one layer, one scale per output channel.

    `bits` holds one width per output channel, or a single one for all of them; `limit` is the largest magnitude that
    an 8-bit channel uses: 127, or 63 where pairs of products must fit 16 bits (processors without VNNI).
    """

    bits: tuple[int, ...]
    limit: int = 127

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

    weights: Mapping[str, WeightQuant]
    activations: Mapping[str, int]
    method: str = "ptq"

    def __post_init__(self) -> None:
        wrong = {name: bits for name, bits in self.activations.items() if type(bits) is not int or not 4 <= bits <= 8}
        if wrong:
            raise FertoolError(f"activations of other than 4 to 8 bits: {wrong}", "make the file again")


@dataclass(frozen=True)
class GateSpec:
    """A dynamic network: the widths of its profiles, the widest first, and the units of its gate's hidden layer.

    `shares` is the part of the images that each profile got, on those that `metrics` speaks of.
    """

    profiles: tuple[Mapping[str, int], ...]
    hidden: int
    shares: tuple[float, ...]


@dataclass(frozen=True)
class Metrics:
    """A measured accuracy and what it was measured on; `accuracy_ci95` is the Wilson 95 % interval."""

    split: str
    n: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    macro_f1: float


@dataclass(frozen=True)
class Step:
    """One command in the life of a model: its options and the digests of all that it read."""

    command: str
    options: Mapping[str, Any] = field(default_factory=dict)
    inputs: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Spec:
    """The header of a model file; see the section on the artifact in docs/artifact.md."""

    arch: str
    arch_args: Mapping[str, Any]
    widths: Mapping[str, int]
    input: InputSpec
    classes: tuple[str, ...]
    params: int = 0
    macs: int = 0
    gates: GateSpec | None = None
    quant: QuantSpec | None = None
    metrics: Metrics | None = None
    provenance: tuple[Step, ...] = ()
    digest: str = ""
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
        known, required = {f.name for f in fields(cls)}, {"arch", "arch_args", "widths", "input", "classes"}
        if not required <= set(data) <= known:
            wrong = sorted((set(data) - known) | (required - set(data)))
            raise FertoolError(f"{where}: header keys missing or unknown: {', '.join(wrong)}", "make the file again")
        try:
            return cls(
                **{
                    **data,
                    "input": InputSpec(**_tuples(data["input"])),
                    "classes": tuple(data["classes"]),
                    "gates": GateSpec(**_tuples(data["gates"])) if data.get("gates") else None,
                    "quant": _quant_from_data(data.get("quant")),
                    "metrics": Metrics(**_tuples(data["metrics"])) if data.get("metrics") else None,
                    "provenance": tuple(Step(**step) for step in data.get("provenance", ())),
                }
            )
        except (TypeError, KeyError, ValueError, AttributeError, RecursionError, zlib.error, FertoolError) as error:
            raise FertoolError(f"{where}: the fertool header is damaged ({error})", "make the file again") from None


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read_header_text(text: str, where: str) -> tuple[dict[str, Any], str, int]:
    """Return a header's fields, the kind of file and the version of its format; raises FertoolError naming `where`."""
    try:
        data = json.loads(text)
        return data, data.get("kind", "model"), data["format"]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FertoolError(f"{where}: the fertool header is not readable", "make the file again") from None


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _tuples(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}


def _quant_from_data(data: Mapping[str, Any] | str | None) -> QuantSpec | None:
    if data is None:
        return None
    if isinstance(data, str):
        text = zlib.decompressobj().decompress(base64.b85decode(data), _LONGEST_TABLE)
        return _quant_from_data(json.loads(text))
    weights = {
        name: WeightQuant(**{**entry, "bits": tuple(map(int, entry["bits"]))})
        for name, entry in data["weights"].items()
    }
    return QuantSpec(weights=weights, activations=dict(data["activations"]), method=data["method"])
