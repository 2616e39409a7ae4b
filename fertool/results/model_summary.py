"""What `show` reads in the header of a file: the first keys of every command that makes a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Self, TypedDict

from msgspec import UNSET, UnsetType

from fertool.artifact.contract import Contract
from fertool.artifact.logits_header import LogitsSpec
from fertool.config.gate import Gate
from fertool.gate_spec import Margin, RoutingMetrics
from fertool.results.fields import FileSize, Result, described, values_of
from fertool.spec import (
    EXPORT_KEYS,
    OPTIONAL_KEYS,
    FaceTemplate,
    InputSpec,
    Metrics,
    ProvenanceStep,
    QuantSpec,
    Spec,
    Temperature,
)
from fertool.strict_json import Count, Fraction, Name, Positive, Text


@dataclass(frozen=True, kw_only=True)
class _File(Result):
    file: Annotated[Text | None, described("the file; null for a model in memory")]
    size_bytes: Annotated[FileSize, described("size of the file")]


@dataclass(frozen=True)
class GatesSummary:
    """The gates of a dynamic network: what each profile has, the widest first."""

    profiles: Annotated[
        tuple[Mapping[Name, Positive], ...], described("output channels by layer, for each profile")
    ]
    hidden: Annotated[Count, described("hidden units of the gate; 0 of a cascade")]
    shares: Annotated[tuple[Fraction, ...], described("fraction of the images of each profile")]
    kind: Annotated[Gate, described("what chooses the profile of an image")] = "statistics"
    thresholds: Annotated[
        tuple[Margin, ...] | None,
        described("of a cascade: the margin at which each profile but the widest decides"),
    ] = None
    routing: Annotated[
        RoutingMetrics | None,
        described("the choice against the same shares of the images at random"),
    ] = None


# By a call, since `in` is a keyword.
NodeSummary = TypedDict(
    "NodeSummary",
    {"name": str, "op": str, "in": list[str], "args": dict[str, Any]},
    total=False,
)
"""One operator of a network: its name, the names of what it reads, and its arguments."""


@dataclass(frozen=True, kw_only=True)
class ModelSummary(_File):
    """A model file: what its header says, with channels in place of the graph."""

    arch: Annotated[Name, described("name of the architecture, or where the network came from")]
    arch_args: Annotated[Mapping[Name, Any], described("arguments of the architecture")]
    input: Annotated[InputSpec, described("image, normalized by (pixel / 255 - mean) / std")]
    classes: Annotated[tuple[Name, ...], described("names of the outputs, in order")]
    params: Annotated[Count, described("learned values")]
    macs: Annotated[Count, described("multiply-accumulates of one image")]
    gates: Annotated[GatesSummary | None, described("of a dynamic network")]
    quant: Annotated[
        QuantSpec | None,
        described("bits of the weights by layer and channel, and of the activations by tensor"),
    ]
    metrics: Annotated[Metrics | None, described("figures on the validation images")]
    provenance: Annotated[
        tuple[ProvenanceStep, ...], described("every step that made the model, oldest first")
    ]
    digest: Annotated[Text, described("digest of header and weights")]
    format: Annotated[int, described("version of the header")]
    channels: Annotated[Mapping[Name, Positive], described("output channels by layer")]
    temperature: Annotated[
        Temperature | UnsetType,
        described("where it is known: what the logits are divided by for probabilities"),
    ] = UNSET
    face_template: Annotated[
        FaceTemplate | UnsetType,
        described("where it was measured: places of five landmarks, fractions of the side"),
    ] = UNSET

    @classmethod
    def of(cls, file: Path | None, size_bytes: int, spec: Spec, **others: Any) -> Self:
        """Return the summary of a model with this header; `others` are the keys of a subclass."""
        # A graph is larger than all the rest; its channels are what one compares.
        gates = None
        if spec.gates:
            profiles = tuple(profile.channels for profile in spec.gates.profiles)
            gates = GatesSummary(
                profiles,
                spec.gates.hidden,
                spec.gates.shares,
                kind=spec.gates.kind,
                thresholds=spec.gates.thresholds,
                routing=spec.gates.routing,
            )
        same = values_of(spec, Spec, without=("graph", "gates", *EXPORT_KEYS))
        for name in OPTIONAL_KEYS:
            if same[name] is None:
                del same[name]
        return cls(
            file=str(file) if file else None,
            size_bytes=size_bytes,
            gates=gates,
            channels=spec.graph.channels,
            **same,
            **others,
        )


@dataclass(frozen=True, kw_only=True)
class ShownModel(ModelSummary):
    """The JSON of `show` about a model file."""

    layers: Annotated[
        tuple[NodeSummary, ...] | UnsetType,
        described("with ``layers``: the operators of the network, in running order"),
    ] = UNSET
    contract: Annotated[Contract, described("how the file is fed, and what it gives")]
    snippet: Annotated[
        str | None, described("Python that labels one picture; null for other packages' formats")
    ]


@dataclass(frozen=True)
class LogitsSummary(LogitsSpec, _File):
    """The JSON of `show` about a file of recorded logits: what its header says."""

    @classmethod
    def of(cls, file: Path, spec: LogitsSpec) -> Self:
        """Return the summary of a file with this header."""
        size_bytes = file.stat().st_size
        return cls(file=str(file), size_bytes=size_bytes, **values_of(spec, LogitsSpec))
