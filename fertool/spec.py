"""What a model file says about itself, as plain data: read and checked without torch."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
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
    shown,
)
from fertool.errors import FertoolError
from fertool.graph.ir import Graph

FORMAT = 2
"""Version of the header. Files of version 1 named an architecture and its widths instead of holding a graph."""

# What the numbers of a header may be: generous for networks that classify images, and nothing that fills a memory.
# docs/artifact.md has them.
LARGEST_SIDE = 1024
"""Pixels of the side of an input."""
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Channels = Annotated[int, Meta(ge=1, le=4)]
Classes = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=65_536)]
Mean = Annotated[float, Meta(ge=-16, le=16)]
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

    Where `mean` is a multiple of 1/255 the same map is an ONNX DequantizeLinear of uint8 pixels with an integer zero
    point: an INT8 network then takes raw pixels without a rounding of its own.
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

    @property
    def zero_point(self) -> tuple[float, ...]:
        """The pixel value that maps to 0, one per channel; a whole number wherever it is one but for rounding."""
        exact = tuple(mean * 255 for mean in self.mean)
        return tuple(
            round(value) if abs(value - round(value)) <= 1e-6 else value for value in exact
        )

    @property
    def integer_zero_point(self) -> bool:
        """Whether each of these values is one that a pixel can have."""
        return all(value == round(value) and 0 <= value <= 255 for value in self.zero_point)

    @property
    def scale(self) -> tuple[float, ...]:
        """What one grey level is worth after normalisation, one per channel."""
        return tuple(1 / (255 * s) for s in self.std)


WIDTHS = (2, 3, 4, 5, 6, 7, 8)
"""Bits that a weight may have."""
_LONGEST_TABLE = 16 << 20
"""Bytes of an unpacked table of bits, so that a small file cannot fill the memory."""
_LONGEST_GRAPH = 4 << 20
"""Bytes of an unpacked graph, and of those of all profiles; a network of 200 nodes takes some 20 kB."""
_PIECE = 5 << 14
"""Characters that are unpacked at a time; base85 has groups of five."""
_MOST_PROFILES = 16


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
            raise FertoolError(
                f"weights of {self.bits} bits: there are 2 to 8 of them", "make the file again"
            )
        if type(self.limit) is not int or not 1 <= self.limit <= 127:
            raise FertoolError(
                f"weights up to {self.limit}: they are within 127", "make the file again"
            )

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
        wrong = {
            name: bits
            for name, bits in self.activations.items()
            if type(bits) is not int or not 4 <= bits <= 8
        }
        if wrong:
            raise FertoolError(
                f"activations of other than 4 to 8 bits: {wrong}", "make the file again"
            )


@dataclass(frozen=True)
class GateSpec:
    """A dynamic network: the graphs of its profiles, the widest first, and the units of its gate's hidden layer.

    `shares` is the part of the images that each profile got, on those that `metrics` speaks of.
    """

    profiles: Annotated[tuple[Graph, ...], Meta(max_length=_MOST_PROFILES)]
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
    """The header of a model file; see docs/artifact.md.

    `graph` is the network, of a dynamic one the widest profile; `arch` and `arch_args` say where it came from.
    """

    arch: Name
    arch_args: Annotated[Mapping[Name, Any], Meta(max_length=100)]
    graph: Graph
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

    def shown(self) -> dict[str, Any]:
        """Return the spec as `show --json` has it: plain values, of graphs the channels that their layers make."""
        # Not msgspec.to_builtins, which leaves out what msgspec.convert took from the default.
        plain = asdict(replace(self, graph=_NO_GRAPH, gates=None))
        del plain["graph"]
        gates = None
        if self.gates:
            profiles = [profile.channels for profile in self.gates.profiles]
            gates = {**asdict(replace(self.gates, profiles=())), "profiles": profiles}
        return {**plain, "channels": self.graph.channels, "gates": gates}

    def to_json(self, *, deflated: bool = False) -> str:
        """Return the canonical text: sorted keys, no spaces, the same bytes for the same content.

        Graphs are texts: their own JSON behind zlib and base85. `deflated` makes the table of bits under `quant`, most
        of the header of a small network, a third as long in the same way.
        """
        data = asdict(replace(self, graph=_NO_GRAPH, gates=None))
        data["graph"] = _packed_graph(self.graph)
        if self.gates:
            profiles = [_packed_graph(profile) for profile in self.gates.profiles]
            data["gates"] = {**asdict(replace(self.gates, profiles=())), "profiles": profiles}
        for entry in (data["quant"] or {"weights": {}})["weights"].values():
            # One letter for each of thousands of channels.
            entry["bits"] = "".join(map(str, entry["bits"]))
        if data["quant"] and deflated:
            data["quant"] = _deflated(canonical_json(data["quant"]))
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
                f"{where}: header format {version}, this fertool reads format {FORMAT}",
                _remedy(data),
            )
        require_keys(data, cls, where)
        with refusing(where, DAMAGED, "make the file again"):
            return _spec_of(data)


DAMAGED = "the fertool header is damaged"


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


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
        raise FertoolError(
            f"{where}: header keys missing or unknown: {listed(wrong)}", "make the file again"
        )


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def _spec_of(data: dict[str, Any]) -> Spec:
    """Return the spec of a header's fields; raises WrongContentError for wrong ones."""
    (graph,), gates = _unpacked_graphs([data["graph"]], "graph"), data.get("gates")
    profiles: tuple[Graph, ...] = ()
    if isinstance(gates, dict) and isinstance(gates.get("profiles"), list):
        if not 1 <= len(gates["profiles"]) <= _MOST_PROFILES:
            raise WrongContentError(
                f"`gates` has {len(gates['profiles'])} profiles, expected 1 to {_MOST_PROFILES}"
            )
        profiles = tuple(_unpacked_graphs(gates["profiles"], "gates.profiles"))
        gates = {**gates, "profiles": []}
    quant = _unpacked_quant(data.get("quant"))
    rest = {**data, "graph": _NO_GRAPH_AS_JSON, "gates": gates, "quant": quant}
    spec = replace(as_type(rest, Spec, known_only=True), graph=graph)
    if spec.gates:
        spec = replace(spec, gates=replace(spec.gates, profiles=profiles))
    _require_consistent(spec)
    return spec


def _remedy(data: Mapping[str, Any]) -> str:
    """Return what to do about a file of another format: its provenance says which command made it."""
    steps = data.get("provenance")
    last = steps[-1] if isinstance(steps, list) and steps else {}
    command = last.get("command") if isinstance(last, dict) else None
    known = command in ("train-teacher", "distill", "prune", "quantize", "export")
    if data.get("format") != 1:
        return "install a newer fertool"
    return (
        f"make it again with this version's fertool {command}"
        if known
        else "make it again with this version"
    )


def _require_consistent(spec: Spec) -> None:
    """Raise WrongContentError for parts of a header that do not fit each other."""
    if len(set(spec.classes)) < len(spec.classes):
        raise WrongContentError("`classes` has a name twice")
    metrics, gates = spec.metrics, spec.gates
    if metrics:
        low, high = metrics.accuracy_ci95
        if not low <= metrics.accuracy <= high:
            raise WrongContentError(
                f"`metrics.accuracy` is {metrics.accuracy}, outside of its interval"
            )
    if gates and len(gates.shares) != len(gates.profiles):
        raise WrongContentError(
            f"`gates` has {len(gates.profiles)} profiles and {len(gates.shares)} shares"
        )


def _unpacked_quant(data: Any) -> Any:
    """Return what a header has under `quant` with the bits of each layer as a list; what is not as it should be stays.

    In an ONNX file it is a text: the same JSON behind zlib and base85.
    """
    if isinstance(data, str):
        data = parse_json(_inflated(data, "quant", _LONGEST_TABLE))
    if not isinstance(data, dict) or not isinstance(data.get("weights"), dict):
        return data
    return {
        **data,
        "weights": {name: _unpacked_bits(rule) for name, rule in data["weights"].items()},
    }


def _unpacked_bits(rule: Any) -> Any:
    """Return the rule of a layer with its letter for each channel as a list of numbers."""
    bits = rule.get("bits") if isinstance(rule, dict) else None
    if not isinstance(bits, str) or not (bits.isascii() and bits.isdigit()):
        return rule
    return {**rule, "bits": [int(digit) for digit in bits]}


def _packed_graph(graph: Graph) -> str:
    return _deflated(canonical_json(graph.to_builtins()))


def _unpacked_graphs(texts: Iterable[Any], key: str) -> Iterator[Graph]:
    left = _LONGEST_GRAPH
    for text in texts:
        if not isinstance(text, str):
            raise WrongContentError(f"`{key}` is {shown(text)}, expected text")
        unpacked = _inflated(text, key, left)
        left -= len(unpacked)
        yield Graph.from_builtins(parse_json(unpacked))


def _deflated(text: str) -> str:
    return base64.b85encode(zlib.compress(text.encode(), level=9)).decode()


def _inflated(text: str, key: str, most: int) -> bytes:
    """Return the text behind zlib and base85; raises WrongContentError for what is none, or too long."""
    unpacker = zlib.decompressobj()
    found = bytearray()
    try:
        # Piece by piece: base85 of the standard library is slow, and what is too long shows early.
        for start in range(0, len(text), _PIECE):
            packed = base64.b85decode(text[start : start + _PIECE])
            found += unpacker.decompress(packed, most - len(found) + 1)
            if len(found) > most:
                break
    except (ValueError, zlib.error) as error:
        raise WrongContentError(f"`{key}` does not unpack ({error})") from None
    if not unpacker.eof or len(found) > most:
        raise WrongContentError(f"`{key}` is cut off, or unpacks to more than {most:,} bytes")
    return bytes(found)


_NO_GRAPH = Graph("x", (), "x")
_NO_GRAPH_AS_JSON = {"input": "x", "nodes": [], "output": "x"}
