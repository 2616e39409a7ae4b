"""Measure how much the precision of each channel matters."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable, write_atomic
from fertool.config.option import configured
from fertool.config.pictures import TracePictures
from fertool.config.run import RunConfig
from fertool.config.sensitivity import TraceConfig
from fertool.errors import FertoolError
from fertool.reporter import SILENT, Reporter, noting_resume
from fertool.workflows.data import Data
from fertool.workflows.model import Model
from fertool.workflows.outputs import as_path, state_path
from fertool.workflows.pictures import draw_traces, require_pictures

if TYPE_CHECKING:
    from fertool.data.dataset import FaceDataset
    from fertool.hessian import LayerSensitivity, Sensitivity


def sensitivity(
    model: Model,
    data: Data,
    config: TraceConfig = TraceConfig(),
    *,
    output: str | Path | None = None,
    pictures: TracePictures = TracePictures(),
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> Sensitivity:
    """Estimate Hessian traces of each output channel of every convolution and linear layer.

    They are those of the channel's weights and of its activation, the layer's output ahead of batch
    norm. Those of a dynamic network's profiles are multiplied by the share of the images that a
    profile gets: a rounding matters as often as it is seen. With an `output` the JSON is written
    there, and a killed run resumes from OUT.resume. `options` are those of `TraceConfig`,
    `TracePictures` and `RunConfig`, by name.

    Raises FertoolError for a quantized model, UsageError for a wrong option.
    """
    config, pictures, run = configured(config, options, pictures, run)
    config = replace(config, seed=run.seed)
    output = as_path(output)
    inputs = [*model.files, *data.files]
    state_files = _state_files(model, output)
    if output is not None:
        for path in (output, *state_files):
            require_writable(path, *inputs)
    require_pictures(pictures, output, inputs)

    from fertool.artifact.resume_file import discard_resume
    from fertool.device import resolve_device

    _require_differentiable(model)
    if not run.resume:
        for state in state_files:
            discard_resume(state)
    source = data.fitted_to(model)
    faces = source.split("train").balanced_subset(config.max_images, run.seed)
    # A copy, since a module is moved in place.
    module = copy.deepcopy(model.module).to(resolve_device(run.device))

    def states() -> list[Path]:
        return [state for state in state_files if state.exists()]

    with noting_resume(reporter, states), reporter.progress("traces") as on_progress:
        found = _estimate(replace(model, module=module), faces, config, state_files, on_progress)
    # The estimation knows a module only; `quantize` refuses traces of another model.
    found = replace(found, model_digest=model.spec.digest)
    # The state goes last: a run that is killed in between is finished by its state.
    if output:
        write_atomic(output, found.to_json().encode())
        for state in state_files:
            discard_resume(state)
    draw_traces(pictures, found)
    _report_error(found, config, reporter)
    return found


def _state_files(model: Model, output: Path | None) -> list[Path]:
    """Return the files that a killed run resumes from: one, or one for each profile."""
    if output is None:
        return []
    if model.spec.gates is None:
        return [state_path(output)]
    profiles = range(len(model.spec.gates.profiles))
    return [state_path(output, f".profile-{index}") for index in profiles]


def _estimate(
    model: Model,
    faces: FaceDataset,
    config: TraceConfig,
    state_files: list[Path],
    on_progress: Callable[[int, int], None],
) -> Sensitivity:
    """Return the traces of a network; those of profiles in proportion to what they classify."""
    from fertool.data.pixels import to_input
    from fertool.gate_spec import profile_prefix
    from fertool.hessian import estimate_traces
    from fertool.models.profile_network import LEAST_SHARE, ProfileNetwork

    inputs = to_input(faces.images, model.input)
    module = model.module
    if not isinstance(module, ProfileNetwork):
        state = state_files[0] if state_files else None
        return estimate_traces(
            module, inputs, faces.labels, config, resume=state, on_progress=on_progress
        )
    parts = []
    layers: list[LayerSensitivity] = []
    for index, network in enumerate(module.networks):
        state = state_files[index] if state_files else None
        found = estimate_traces(
            network, inputs, faces.labels, config, resume=state, on_progress=on_progress
        )
        share = max(module.shares[index], LEAST_SHARE)
        for layer in found.layers:
            layers.append(_weighted(layer, profile_prefix(index), share))
        parts.append(found)
    samples = min(part.samples for part in parts)
    return replace(parts[0], samples=samples, layers=tuple(layers))


def _weighted(layer: LayerSensitivity, prefix: str, share: float) -> LayerSensitivity:
    """Return the traces of a layer of a profile that classifies this share of the images."""
    scaled: dict[str, Any] = {}
    for key in ("weight_trace", "weight_trace_sem", "activation_trace", "activation_trace_sem"):
        scaled[key] = tuple(share * value for value in getattr(layer, key))
    return replace(layer, name=f"{prefix}{layer.name}", **scaled)


def _require_differentiable(model: Model) -> None:
    """Raise FertoolError for a network without Hessian traces of its channels."""
    if model.spec.quant is not None:
        raise FertoolError(
            f"{model.name}: a quantized model, whose rounding has no derivative",
            "give the model that it was made from",
        )


def _report_error(found: Sensitivity, config: TraceConfig, reporter: Reporter) -> None:
    """Report the standard error, and what to do where it should be smaller."""
    from fertool.report.units import percent_text

    error = found.relative_error()
    effort = f"{found.samples:,} images"
    if found.probes:
        effort += f" and {found.probes:,} probes"
    message = (
        f"standard error of the median channel {percent_text(error)} of its trace, with {effort}"
    )
    if config.target_error is None or error <= config.target_error:
        reporter.note(message)
        return
    wanted = percent_text(config.target_error)
    reporter.warn(f"{message}: not {wanted}; raise ``max_rounds``, or take a larger data set")
