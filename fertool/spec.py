"""The header of a model file, as plain data: read and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Annotated, Any, Literal

from msgspec import Meta

from fertool.config.image_options import LARGEST_MEAN, LARGEST_SIDE, Layout
from fertool.errors import FertoolError
from fertool.gate_spec import MOST_PROFILES, GateSpec, profile_prefix
from fertool.graph.ir import Graph
from fertool.header_json import (
    DAMAGED,
    canonical_json,
    compress_graph,
    compress_text,
    decompress_graphs,
    expand_quant,
    read_header_text,
    require_keys,
)
from fertool.quant_spec import WEIGHT_BITS as WEIGHT_BITS
from fertool.quant_spec import ComputeSpec as ComputeSpec
from fertool.quant_spec import QuantSpec as QuantSpec
from fertool.quant_spec import WeightQuant as WeightQuant
from fertool.quant_spec import join_quants as join_quants
from fertool.strict_json import (
    Count,
    Fraction,
    Name,
    Positive,
    Text,
    WrongContentError,
    as_type,
    wrapping_content_errors,
)

FORMAT = 2
"""Version of the header. Version 1 had an architecture and its widths in place of a graph."""

# The bounds of a header's numbers: generous for networks that classify images, and nothing that
# fills a memory. docs/artifact.md has them.
Side = Annotated[int, Meta(ge=1, le=LARGEST_SIDE)]
Channels = Annotated[int, Meta(ge=1, le=4)]
Classes = Annotated[tuple[Name, ...], Meta(min_length=1, max_length=65_536)]
Mean = Annotated[float, Meta(ge=-LARGEST_MEAN, le=LARGEST_MEAN)]
Deviation = Annotated[float, Meta(ge=1e-6, le=1e6)]
Names = Annotated[Mapping[Name, Text], Meta(max_length=1000)]
Digest = Annotated[str, Meta(max_length=128)]
Temperature = Annotated[float, Meta(ge=1e-3, le=1e3)]
Landmark = tuple[Fraction, Fraction]
FaceTemplate = Annotated[tuple[Landmark, ...], Meta(min_length=5, max_length=5)]
"""Where five landmarks of a face lie in the images, as fractions of the side."""
OPTIONAL_KEYS = ("temperature", "face_template")
"""Keys of a header that stand there only where they are known."""
EXPORT_KEYS = ("preprocessing", "output")
"""The same of exported files alone: what they compute before and behind the network."""
_MOST_STEPS = 1000
MOST_PIXELS = 1 << 22
"""Positions of all images of a batch: 4 of 1024 x 1024, 83 of 224 x 224."""


def affordable_batch(wanted: int, size: int) -> int:
    """Return `wanted`, or the number of images of side `size` (pixels) that one batch may have.

    The feature maps of a network grow with its input, whose size a small file is free to state.
    """
    return max(1, min(wanted, MOST_PIXELS // size**2))


@dataclass(frozen=True)
class InputSpec:
    """The input of a model: square images, normalized by `(pixel / 255 - mean) / std`.

    Where `mean` is a multiple of 1/255 the same map is an ONNX DequantizeLinear of uint8 pixels
    with an integer zero point: an INT8 network then takes raw pixels without another rounding.
    Raises FertoolError unless there is one mean and one deviation per channel.
    """

    channels: Channels = 1
    size: Side = 48
    mean: tuple[Mean, ...] = (129 / 255,)
    std: tuple[Deviation, ...] = (64 / 255,)

    def __post_init__(self) -> None:
        if not (len(self.mean) == len(self.std) == self.channels):
            raise FertoolError(
                f"input has {self.channels} channels but {len(self.mean)} means and "
                f"{len(self.std)} deviations",
                "give one mean and one deviation per channel",
            )

    @property
    def zero_point(self) -> tuple[float, ...]:
        """The pixel value that maps to 0, one per channel."""
        zero_points: list[float] = []
        for mean in self.mean:
            value = mean * 255
            # 129 / 255 * 255 need not be 129 in floating point, and integers have exact kernels.
            is_integer = abs(value - round(value)) <= 1e-6
            zero_points.append(round(value) if is_integer else value)
        return tuple(zero_points)

    @property
    def integer_zero_point(self) -> bool:
        """Whether each zero point is a value that a pixel can have."""
        return all(value == round(value) and 0 <= value <= 255 for value in self.zero_point)

    @property
    def scale(self) -> tuple[float, ...]:
        """The step of one gray level after normalization, one per channel."""
        return tuple(1 / (255 * s) for s in self.std)


@dataclass(frozen=True)
class PreprocessingSpec:
    """The crops that an exported file takes where it converts and resizes them itself."""

    layout: Layout = "nhwc"
    channels: Literal[1, 3] = 3


@dataclass(frozen=True)
class Metrics:
    """A measured accuracy and its images; `accuracy_ci95` is the Wilson 95 % interval."""

    split: Name
    n: Positive
    accuracy: Fraction
    accuracy_ci95: tuple[Fraction, Fraction]
    macro_f1: Fraction


@dataclass(frozen=True)
class ProvenanceStep:
    """One command of a model's provenance: its options and the digests of all that it read."""

    command: Name
    options: Annotated[Mapping[Name, Any], Meta(max_length=1000)] = field(default_factory=dict)
    inputs: Names = field(default_factory=dict)
    versions: Names = field(default_factory=dict)
    seed: int | None = None


@dataclass(frozen=True)
class Spec:
    """The header of a model file; see docs/artifact.md.

    `graph` is the network, of a dynamic one the widest profile; `arch` and `arch_args` name the
    architecture that it was made from. `temperature` divides the logits where probabilities are
    asked for; `face_template` tells how the faces of the images were cut out. Exported files alone
    have `preprocessing`, where they take crops of any size, and `output`, where they end in a
    softmax.
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
    provenance: Annotated[tuple[ProvenanceStep, ...], Meta(max_length=_MOST_STEPS)] = ()
    digest: Digest = ""
    format: int = FORMAT
    temperature: Temperature | None = None
    face_template: FaceTemplate | None = None
    preprocessing: PreprocessingSpec | None = None
    output: Literal["probabilities"] | None = None

    def with_step(self, step: ProvenanceStep, **changes: Any) -> Spec:
        """Return the spec of the next file, with `changes`, and `step` in the provenance."""
        return replace(self, provenance=(*self.provenance, step), digest="", **changes)

    def require_static(self, step: str) -> None:
        """Raise FertoolError for a dynamic network: it "cannot be" `step`, a participle."""
        if self.gates is not None:
            raise FertoolError(
                f"a dynamic network, of {len(self.gates.profiles)} profiles, cannot be {step}",
                "give the model that it was made from",
            )

    def of_profile(self, index: int) -> Spec:
        """Return the spec of one profile of a dynamic network, as that of a static network."""
        assert self.gates is not None
        quant = None
        if self.quant is not None:
            quant = self.quant.under(profile_prefix(index))
        return replace(self, graph=self.gates.profiles[index], gates=None, quant=quant)

    def to_json(self, *, deflated: bool = False) -> str:
        """Return the canonical text: sorted keys, no spaces, the same bytes for the same content.

        Graphs are texts: their own JSON behind zlib and base85. `deflated` does the same to the
        table of bits under `quant`, most of the header of a small network, which becomes a third as
        long.
        """
        data = asdict(replace(self, graph=_NO_GRAPH, gates=None, quant=None))
        for name in (*OPTIONAL_KEYS, *EXPORT_KEYS):
            # So that files without them are the same bytes as before there were such fields.
            if data[name] is None:
                del data[name]
        data["graph"] = compress_graph(self.graph)
        if self.gates:
            profiles = [compress_graph(profile) for profile in self.gates.profiles]
            data["gates"] = {**self.gates.to_builtins(), "profiles": profiles}
        if self.quant:
            data["quant"] = self.quant.to_builtins()
            if deflated:
                data["quant"] = compress_text(canonical_json(data["quant"]))
        return canonical_json(data)

    @classmethod
    def from_json(cls, text: str, where: str) -> Spec:
        """Read a header.

        Raises FertoolError naming `where` for a newer format, missing keys or wrong types.
        """
        data, kind, version = read_header_text(text, where)
        if kind != "model":
            raise FertoolError(
                f"{where}: a {kind} file, not a model",
                "give a model file, .pt or .onnx; logits take the place of teachers in distill",
            )
        if version != FORMAT:
            raise FertoolError(
                f"{where}: header format {version}, this fertool reads format {FORMAT}",
                _hint_for_format(data),
            )
        require_keys(data, cls, where)
        with wrapping_content_errors(where, DAMAGED, "make the file again"):
            return _parse_spec(data)


def _parse_spec(data: dict[str, Any]) -> Spec:
    """Return the spec of a header's fields; raises WrongContentError for wrong ones."""
    (graph,) = decompress_graphs([data["graph"]], "graph")
    gates = data.get("gates")
    profiles: tuple[Graph, ...] = ()
    if isinstance(gates, dict) and isinstance(gates.get("profiles"), list):
        # Counted before any is decompressed.
        if not 1 <= len(gates["profiles"]) <= MOST_PROFILES:
            raise WrongContentError(
                f"`gates` has {len(gates['profiles'])} profiles, expected 1 to {MOST_PROFILES}"
            )
        profiles = tuple(decompress_graphs(gates["profiles"], "gates.profiles"))
        gates = {**gates, "profiles": []}

    # The graphs have checked themselves, with errors that name the node.
    rest = {
        **data,
        "graph": _NO_GRAPH_AS_JSON,
        "gates": gates,
        "quant": expand_quant(data.get("quant")),
    }
    spec = replace(as_type(rest, Spec, known_only=True), graph=graph)
    if spec.gates:
        spec = replace(spec, gates=replace(spec.gates, profiles=profiles))
    _require_consistent(spec)
    return spec


def _hint_for_format(data: Mapping[str, Any]) -> str:
    """Return the hint for a file of another format: the command that made it, by its provenance."""
    if data.get("format") != 1:
        return "install a newer fertool"
    command = _last_command(data)
    # Checked, since the file may hold any text there.
    if command in ("train-teacher", "distill", "prune", "quantize", "export"):
        return f"make it again with this version's fertool {command}"
    return "make it again with this version"


def _last_command(data: Mapping[str, Any]) -> Any:
    """Return the command of the last step of a header of any format; None where there is none."""
    # Nothing is certain about the fields of another format.
    steps = data.get("provenance")
    if not isinstance(steps, list) or not steps or not isinstance(steps[-1], dict):
        return None
    return steps[-1].get("command")


def _require_consistent(spec: Spec) -> None:
    """Raise WrongContentError for parts of a header that do not fit each other."""
    # Predictions are reported by the names of classes.
    if len(set(spec.classes)) < len(spec.classes):
        raise WrongContentError("`classes` has a name twice")
    metrics = spec.metrics
    if metrics:
        low, high = metrics.accuracy_ci95
        if not low <= metrics.accuracy <= high:
            raise WrongContentError(
                f"`metrics.accuracy` is {metrics.accuracy}, outside of its interval"
            )
    if spec.gates:
        spec.gates.require_consistent()


# Stands in for a graph while the other fields are converted.
_NO_GRAPH = Graph("x", (), "x")
_NO_GRAPH_AS_JSON = {"input": "x", "nodes": [], "output": "x"}
