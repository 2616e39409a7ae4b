"""Measure how much the precision of each channel matters."""

from __future__ import annotations

import copy
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
    from fertool.hessian import Sensitivity


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
    norm. With an `output` the JSON is written there, and a killed run resumes from OUT.resume.
    `options` are those of `TraceConfig`, `TracePictures` and `RunConfig`, by name.

    Raises FertoolError for a quantized or dynamic model, UsageError for a wrong option.
    """
    config, pictures, run = configured(config, options, pictures, run)
    config = replace(config, seed=run.seed)
    output = as_path(output)
    inputs = [*model.files, *data.files]
    state = None
    if output is not None:
        state = state_path(output)
        for path in (output, state):
            require_writable(path, *inputs)
    require_pictures(pictures, output, inputs)

    from fertool.artifact.resume_file import discard_resume
    from fertool.data.pixels import to_input
    from fertool.device import resolve_device
    from fertool.hessian import estimate_traces

    _require_differentiable(model)
    if state and not run.resume:
        discard_resume(state)
    source = data.fitted_to(model)
    faces = source.split("train").balanced_subset(config.max_images, run.seed)
    # A copy, since a module is moved in place.
    module = copy.deepcopy(model.module).to(resolve_device(run.device))

    def states() -> list[Path]:
        if state is None or not state.exists():
            return []
        return [state]

    with noting_resume(reporter, states), reporter.progress("traces") as on_progress:
        found = estimate_traces(
            module,
            to_input(faces.images, model.input),
            faces.labels,
            config,
            resume=state,
            on_progress=on_progress,
        )
    # The estimation knows a module only; `quantize` refuses traces of another model.
    found = replace(found, model_digest=model.spec.digest)
    # The state goes last: a run that is killed in between is finished by its state.
    if output and state:
        write_atomic(output, found.to_json().encode())
        discard_resume(state)
    draw_traces(pictures, found)
    _report_error(found, config, reporter)
    return found


def _require_differentiable(model: Model) -> None:
    """Raise FertoolError for a network without Hessian traces of its channels."""
    if model.spec.quant is not None:
        raise FertoolError(
            f"{model.name}: a quantized model, whose rounding has no derivative",
            "give the model that it was made from",
        )
    model.spec.require_static("measured channel by channel")


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
