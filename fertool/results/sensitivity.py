"""What `hessian-sensitivity` measures: traces of the Hessian by layer and channel."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from fertool.config.sensitivity import TraceMethod
from fertool.errors import FertoolError
from fertool.header_json import canonical_json
from fertool.results.fields import Nats, Result, described
from fertool.strict_json import (
    Count,
    Name,
    WrongContentError,
    as_type,
    parse_json,
    wrapping_content_errors,
)

Hessian = Literal["kl", "cross-entropy"]
HESSIAN_OF: Mapping[TraceMethod, Hessian] = {
    "exact": "kl",
    "probe": "kl",
    "hutchinson": "cross-entropy",
    "hutchinson-masked": "cross-entropy",
}
"""The function whose second derivatives a method measures.

"kl" is the divergence from the float model's own predictions, never negative; "cross-entropy",
against labels, is negative where the curvature is.
"""

_HINT = "run fertool hessian-sensitivity on this model"


@dataclass(frozen=True)
class LayerSensitivity:
    """Traces of one layer, one per output channel: means over images, in nats.

    `weight_trace` is that by the channel's weights, which `weight_params` counts, and
    `activation_trace` that by its activation: the channel of the layer's output, ahead of any batch
    norm, at all positions of an image. Behind a batch norm of factor s and a ReLU the trace is that
    divided by s^2, as is that of the folded weights; positions that the ReLU shuts count 0.

    The `_sem` are standard errors. Method "exact": from the spread over images, the error with
    respect to all images of the same kind. Other methods: from the spread over probes, the error
    with respect to the exact trace of these images. Files of older versions have no traces of
    activations.
    """

    name: Annotated[Name, described("path of the layer")]
    weight_trace: Annotated[
        tuple[Nats, ...],
        Meta(min_length=1, max_length=65_536),
        described("trace by the weights of each output channel"),
    ]
    weight_trace_sem: Annotated[tuple[Nats, ...], described("its standard error")]
    weight_params: Annotated[Count, described("weights of one output channel")]
    activation_trace: Annotated[
        tuple[Nats, ...], described("trace by the activation of each output channel")
    ] = ()
    activation_trace_sem: Annotated[tuple[Nats, ...], described("its standard error")] = ()


@dataclass(frozen=True)
class Sensitivity(Result):
    """Every layer's traces and how they were measured.

    `samples` counts images and `probes` random vectors for each of them (0 for method "exact");
    `hessian` names the function whose second derivatives these are, mean over images.
    """

    model_digest: Annotated[Name, described("digest of the model that was measured")]
    method: Annotated[TraceMethod, described("how the traces were estimated")]
    samples: Annotated[Count, described("images that they are means over")]
    probes: Annotated[Count, described("random vectors for each image; 0 where none are needed")]
    seed: Annotated[int, described("seed of images and probes")]
    layers: Annotated[
        tuple[LayerSensitivity, ...],
        Meta(min_length=1, max_length=20_000),
        described("every convolution and linear layer"),
    ] = field(repr=False)
    hessian: Annotated[Hessian, described("the loss whose second derivatives these are")] = "kl"

    def relative_error(self) -> float:
        """Return the median over channels of `weight_trace_sem` / |`weight_trace`|, 0 to infinity.

        Dead channels, whose trace and error are 0, do not count.
        """
        errors = []
        for layer in self.layers:
            for trace, sem in zip(layer.weight_trace, layer.weight_trace_sem, strict=True):
                if trace:
                    errors.append(sem / abs(trace))
                elif sem:
                    errors.append(math.inf)
        return statistics.median(errors) if errors else 0.0

    def to_json(self) -> str:
        """Return the file's text, the same bytes for the same content."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> Sensitivity:
        """Return the sensitivity of a file's text.

        Raises FertoolError naming `where` for anything that is not a sensitivity file.
        """
        with wrapping_content_errors(where, "not a sensitivity file", _HINT):
            data = parse_json(text)
            if isinstance(data, dict) and "hessian" not in data:
                raise WrongContentError("`hessian` is missing")
            read = as_type(data, cls, known_only=True)
            _require_consistent(read.layers, signed=read.hessian == "cross-entropy")
        if read.hessian != HESSIAN_OF[read.method]:
            raise FertoolError(
                f"{where}: unknown traces, method '{read.method}' of '{read.hessian}'",
                "install a newer fertool",
            )
        return read

    def require_fit(
        self,
        model_digest: str,
        channels: Mapping[str, int],
        where: str,
        accept: tuple[Hessian, ...] = ("kl",),
    ) -> None:
        """Raise FertoolError, naming `where` and all differences, unless the traces fit a model.

        `channels` maps the path of every convolution and linear layer to its number of output
        channels; `accept` names the functions that the traces may be of.
        """
        if self.hessian not in accept:
            methods = [method for method, hessian in HESSIAN_OF.items() if hessian in accept]
            raise FertoolError(
                f"{where}: the traces are of the Hessian of {self.hessian}, "
                f"not of {' or '.join(accept)}",
                f"run fertool hessian-sensitivity with ``method={' or '.join(methods)}``",
            )
        if self.model_digest != model_digest:
            raise FertoolError(
                f"{where}: the traces are of model {self.model_digest[:12]}, "
                f"not of this one, {model_digest[:12]}",
                _HINT,
            )
        problems = self._misfits(channels)
        if problems:
            raise FertoolError(
                f"{where}: the traces do not fit the model: {'; '.join(problems)}", _HINT
            )

    def _misfits(self, channels: Mapping[str, int]) -> list[str]:
        """Return which layers are missing, unknown or of another number of channels."""
        found = {layer.name: len(layer.weight_trace) for layer in self.layers}
        problems = []
        for name, count in channels.items():
            if name not in found:
                problems.append(f"{name} is missing")
            elif found[name] != count:
                problems.append(
                    f"{name} has traces of {found[name]} channels, the model has {count}"
                )
        problems += [f"{name} is unknown" for name in found if name not in channels]
        return problems


def _require_consistent(layers: Sequence[LayerSensitivity], *, signed: bool) -> None:
    """Raise WrongContentError for duplicate names, unequal lengths and impossible signs."""
    if len({layer.name for layer in layers}) < len(layers):
        raise WrongContentError("`layers` has a name twice")
    for layer in layers:
        values = {key: value for key, value in asdict(layer).items() if isinstance(value, tuple)}
        _require_equal_lengths(layer.name, values)
        for key, numbers in values.items():
            may_be_negative = signed and key.endswith("_trace")
            if min(numbers, default=0) < 0 and not may_be_negative:
                raise WrongContentError(f"layer {layer.name}: {key} holds a negative value")


def _require_equal_lengths(name: str, values: Mapping[str, tuple[float, ...]]) -> None:
    counts = {}
    for key, numbers in values.items():
        # Files of older versions have no activation traces.
        if numbers or key.startswith("weight"):
            counts[key] = len(numbers)
    if len(set(counts.values())) > 1:
        lengths = ", ".join(f"{count} of {key}" for key, count in counts.items())
        raise WrongContentError(f"layer {name}: unequal numbers of values, {lengths}")
