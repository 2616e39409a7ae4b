"""The traces as data, and the JSON file that `hessian-sensitivity` writes."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from fertool.errors import FertoolError
from fertool.spec import canonical_json

Method = Literal["exact", "probe"]

_HINT = "run fertool hessian-sensitivity on this model"


@dataclass(frozen=True)
class LayerSensitivity:
    """Traces of one convolution or linear layer, one per output channel, in nats per squared unit of weight.

    `weight_trace_sem` is the standard error of `weight_trace`. Method "exact": from the spread over images, how far the
    trace may be from that of all images of the same kind. Method "probe": from the spread over probes at each image,
    how far it may be from the exact trace of the same images. `weight_params` counts the weights of each channel.
    """

    name: str
    weight_trace: tuple[float, ...]
    weight_trace_sem: tuple[float, ...]
    weight_params: int
    activation_trace: tuple[float, ...] = ()


@dataclass(frozen=True)
class Sensitivity:
    """Every layer's traces and how they were measured.

    `samples` counts images and `probes` random vectors per image (0 for method "exact"); `hessian` names the function
    whose second derivatives these are: "kl", the divergence from the float model, mean over images.
    """

    model_digest: str
    method: Method
    samples: int
    probes: int
    seed: int
    layers: tuple[LayerSensitivity, ...] = field(repr=False)
    hessian: str = "kl"

    def to_json(self) -> str:
        """Return the file's text, the same bytes for the same content."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> Sensitivity:
        """Read a file's text; raises FertoolError naming `where` for anything that is not a sensitivity file."""
        try:
            data = json.loads(text)
            read = cls(**{**data, "layers": tuple(_layer(entry) for entry in data["layers"])})
        except (ValueError, TypeError, KeyError) as error:
            raise FertoolError(f"{where}: not a sensitivity file ({error})", _HINT) from None
        if read.method not in get_args(Method) or read.hessian != "kl":
            raise FertoolError(
                f"{where}: unknown traces, method '{read.method}' of '{read.hessian}'", "install a newer fertool"
            )
        return read

    def require_fit(self, model_digest: str, channels: Mapping[str, int], where: str) -> None:
        """Raise FertoolError, naming `where` and all differences, unless these are the traces of this very model.

        `channels` maps the path of every convolution and linear layer to its number of output channels.
        """
        if self.model_digest != model_digest:
            raise FertoolError(
                f"{where}: the traces are of model {self.model_digest[:12]}, not of this one, {model_digest[:12]}",
                _HINT,
            )
        found = {layer.name: len(layer.weight_trace) for layer in self.layers}
        problems = [f"{name} is missing" for name in channels if name not in found]
        problems += [f"{name} is unknown" for name in found if name not in channels]
        problems += [
            f"{name} has traces of {found[name]} channels, the model has {count}"
            for name, count in channels.items()
            if found.get(name, count) != count
        ]
        if problems:
            raise FertoolError(f"{where}: the traces do not fit the model: {'; '.join(problems)}", _HINT)


def _layer(entry: Mapping[str, Any]) -> LayerSensitivity:
    lists = {key: _values(entry, key) for key in ("weight_trace", "weight_trace_sem", "activation_trace")}
    layer = LayerSensitivity(**{**entry, **lists})
    if len(layer.weight_trace) != len(layer.weight_trace_sem):
        raise ValueError(f"layer {layer.name}: {len(layer.weight_trace)} traces, {len(layer.weight_trace_sem)} errors")
    return layer


def _values(entry: Mapping[str, Any], key: str) -> tuple[float, ...]:
    values = tuple(float(value) for value in entry[key])
    if not all(math.isfinite(value) and value >= 0 for value in values):
        raise ValueError(f"layer {entry['name']}: {key} holds a negative or infinite value")
    return values
