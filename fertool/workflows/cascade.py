"""Put two models into one file, of which the second runs where the first is not sure."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable
from fertool.config.cascade import CascadeConfig
from fertool.config.option import configured, values_of
from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter
from fertool.workflows.data import Data, validation_of
from fertool.workflows.model import Model
from fertool.workflows.outputs import as_path
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.routing import measure_dynamic

if TYPE_CHECKING:
    from fertool.models.cascade_network import CascadeNetwork
    from fertool.spec import Spec


def cascade(
    first: Model,
    second: Model,
    data: Data,
    config: CascadeConfig = CascadeConfig(),
    *,
    output: str | Path | None = None,
    reporter: Reporter = SILENT,
    **options: Any,
) -> Model:
    """Return a dynamic network in which `first` classifies what it is sure of, `second` the rest.

    Both may be float or quantized. The margin of the two largest logits that sends `share` of the
    images on is calibrated on the validation images; the figures on these are cross-fitted. With an
    `output` the model is written there. `options` are those of `CascadeConfig`, by name.

    Raises FertoolError for models of other classes or inputs than each other, for a dynamic one,
    and for a second model that costs less than the first.
    """
    (config,) = configured(config, options)
    output = as_path(output)
    inputs = [*first.files, *second.files, *data.files]
    if output is not None:
        require_writable(output, *inputs)
    _require_fit(first, second)

    from fertool.pruning import set_cascade_threshold

    val = validation_of(data.fitted_to(second))
    spec, module = _joined(first, second, config.share)
    # Costs of 1 and 0: their mean is the share.
    set_cascade_threshold(module, val, spec.input, (1.0, 0.0), config.share)
    assert spec.gates is not None
    spec = replace(spec, gates=replace(spec.gates, thresholds=module.thresholds))
    spec, _ = measure_dynamic(spec, module, val, reporter)
    step = make_step(
        "cascade",
        recorded_options(values_of(config), data.read),
        None,
        first=first.spec.digest,
        second=second.spec.digest,
        data=val,
    )
    return Model(spec.with_step(step), module).finished(output)


def _joined(first: Model, second: Model, share: float) -> tuple[Spec, CascadeNetwork]:
    """Return the cascade of two models, the larger one first, without a threshold yet."""
    from fertool.gate_spec import GateSpec
    from fertool.models.cascade_network import CascadeNetwork
    from fertool.spec import join_quants

    shares = (share, 1 - share)
    # Copies, since the network becomes part of another one.
    networks = [copy.deepcopy(second.module), copy.deepcopy(first.module)]
    module = CascadeNetwork(networks, (0.0,), shares).eval()
    gates = GateSpec((second.graph, first.graph), 0, shares, thresholds=module.thresholds)
    spec = replace(
        second.spec,
        gates=gates,
        quant=join_quants([second.spec.quant, first.spec.quant]),
        metrics=None,
        # A temperature is of the logits of one network.
        temperature=None,
    )
    return spec, module


def _require_fit(first: Model, second: Model) -> None:
    """Raise FertoolError unless two models can stand in each other's place."""
    for model in (first, second):
        model.spec.require_static("part of a cascade")
    for name in ("classes", "input"):
        own, other = getattr(first, name), getattr(second, name)
        if own != other:
            raise FertoolError(
                f"{first.name} and {second.name}: their {name} differ, {own} and {other}",
                "give two models of the same classes, image size, channels and normalization",
            )
    if len(first.classes) < 2:
        raise FertoolError(
            f"{first.name}: a network of one class is always sure", "give models of more classes"
        )
    if first.spec.macs > second.spec.macs:
        raise FertoolError(
            f"{first.name} takes {first.spec.macs:,} multiply-accumulates, {second.name} "
            f"{second.spec.macs:,}",
            "give the smaller model first: it sees every image",
        )
