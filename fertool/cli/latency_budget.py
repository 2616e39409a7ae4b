"""Budgets of latency: a table measured on this machine, and the budget by it that is the asked one by the clock."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from fertool.cli.targets import SECONDS, is_ratio, parse_target
from fertool.strict_json import Finite, Name

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.graph.network import Network
    from fertool.prune import LatencyModel, PruneOptions
    from fertool.runtime import BenchResult
    from fertool.spec import Spec

Grain = Annotated[int, Meta(ge=1, le=65_536)]
_Ratio = Annotated[float, Meta(gt=0, lt=1)]

RUNS = 600
"""Passes of each network in a comparison."""
SHOWN = 256
"""Images that dynamic networks are timed on."""
ATTEMPTS = 6
TOLERANCE = (0.94, 1.01)
"""A measured network is what was asked for within these parts of the budget."""
BINDING_FRACTION = 0.98
"""A budget of which less is used up did not decide."""


def learn_model(spec: Spec, module: Network) -> LatencyModel:
    """Measure networks of other widths, with random weights, layer by layer in ONNX Runtime on one thread."""
    from fertool.config.exporting import ExportConfig
    from fertool.export import export_model
    from fertool.graph.channels import trace_channels
    from fertool.graph.groups import find_groups
    from fertool.graph.surgery import resize
    from fertool.models import with_random_weights
    from fertool.prune import learn_latency
    from fertool.report.console import note, progress
    from fertool.runtime.profile import profile_layers

    graph = trace_channels(module)
    groups = find_groups(graph)

    def profile(sizes: Mapping[str, int]) -> Any:
        narrow = with_random_weights(resize(module, graph, groups, sizes))
        model = export_model(
            replace(spec, graph=narrow.graph), narrow, ExportConfig(simplify=False)
        )
        return profile_layers(model), trace_channels(narrow)

    with progress("latency table") as on_progress:
        model = learn_latency(groups.as_map(), profile, on_progress)
    note(f"the runtime works in steps of {model.granularity} channels here")
    return model


def with_latency(
    asked: str,
    round_to: int | None,
    spec: Spec,
    module: Network,
    options: PruneOptions,
    scoring: FaceDataset | None,
    *,
    state: Path | None,
    resume: bool,
) -> PruneOptions:
    """Return the options with a model of this machine's latency and the budget by it that is --target-latency.

    What was measured stays in the file `state`, if one is named, so that a killed training can `resume` with the same
    network; the caller removes it.
    """
    from fertool.artifact.resume_file import discard_resume
    from fertool.artifact.resume_state import (
        load_state,
        parse_header,
        save_state,
        wrapping_state_errors,
    )
    from fertool.header_json import canonical_json, digest_text
    from fertool.prune import require_scorable
    from fertool.report.console import note

    require_scorable(spec, options, has_data=scoring is not None)
    described = [asked, round_to, spec.digest, asdict(options), scoring.digest if scoring else ""]
    fingerprint = digest_text(canonical_json(described))
    if state and not resume:
        discard_resume(state)
    if state and (known := load_state(state, fingerprint)):
        note("the latencies are those that the killed run measured")
        with wrapping_state_errors(state):
            return parse_header(known[0], _Measured).applied(options)
    ratio = asked_ratio(asked, spec, module)
    model = learn_model(spec, module)
    if round_to and round_to < model.granularity:
        note(
            f"--round-to {round_to}: widths between two multiples of {model.granularity} are no faster here"
        )
    options = replace(options, latency=model, round_to=round_to or max(8, model.granularity))
    options = fit_latency_budget(ratio, spec, module, options, scoring)
    if state and options.targets:
        measured = {
            "grain": model.granularity,
            "terms": model.terms,
            "rest": model.rest,
            "round_to": options.round_to,
            "targets": asdict(options.targets),
        }
        save_state(state, fingerprint, measured, {})
    return options


@dataclass(frozen=True)
class _Targets:
    """The budgets as parts of the given network's cost; one of latency there always is."""

    latency: _Ratio
    macs: _Ratio | None = None
    params: _Ratio | None = None
    size: _Ratio | None = None
    channels: _Ratio | None = None


@dataclass(frozen=True)
class _Measured:
    """What OUT.latency.resume keeps: a latency model, the step of widths that goes with it, and the budgets by it."""

    grain: Grain
    terms: Mapping[Name, tuple[Finite, Finite, Finite, Finite]]
    rest: Finite
    round_to: Grain
    targets: _Targets

    def applied(self, options: PruneOptions) -> PruneOptions:
        """Return the options with the model and the budgets."""
        from fertool.prune import LatencyModel, Targets

        model = LatencyModel(self.grain, self.terms, self.rest)
        return replace(
            options, latency=model, round_to=self.round_to, targets=Targets(**asdict(self.targets))
        )


def asked_ratio(text: str, spec: Spec, module: nn.Module) -> float:
    """Return --target-latency as a part of the network's own latency, which is measured if need be."""
    if is_ratio(text):
        return parse_target("--target-latency", text, 1.0, SECONDS)
    (own,) = bench_networks((spec, module)).results
    return parse_target("--target-latency", text, own.latency_s.median, SECONDS)


def fit_latency_budget(
    asked: float, spec: Spec, module: Network, options: PruneOptions, data: FaceDataset | None
) -> PruneOptions:
    """Return the options with a budget by the table whose network takes the asked part of the time by the clock.

    The table knows the layers, not what the runtime makes of the whole: networks are cut, timed in turns with the
    uncut one, and the budget is corrected, until the time is right; the best attempt counts. Raises UnreachableError
    when the narrowest network takes longer.
    """
    from fertool.prune import Targets, UnreachableError, plan_step, score_channels
    from fertool.report.console import note, progress

    with progress("scores") as on_progress:
        scored = score_channels(spec, module, options, data, on_progress)
    macs, params, size = options.targets.ratios[:3] if options.targets else (None, None, None)
    budget = asked
    found: list[tuple[float, PruneOptions]] = []
    for _ in range(ATTEMPTS):
        tried = replace(options, targets=Targets(macs, params, size, min(budget, 1 - 1e-9)))
        try:
            # Reconstructed weights take no other time.
            step = plan_step(spec, module, replace(tried, local_retrain=False), data, scored=scored)
        except UnreachableError:
            if not found:
                raise
            fastest = min(measured for measured, _ in found)
            if fastest > TOLERANCE[1] * asked:
                raise UnreachableError(
                    f"--target-latency: {asked:.2f} of the time is out of reach, the narrowest network that was found "
                    f"takes {fastest:.2f}",
                    "ask for more, or lower --round-to",
                ) from None
            break
        smaller = step.apply(module)
        (pair,) = bench_networks(
            (spec, module), (replace(spec, graph=smaller.graph), smaller)
        ).comparisons
        measured = 1 / pair.speedup
        found.append((measured, tried))
        note(
            f"a budget of {budget:.3f} by the table is {measured:.3f} of the input's latency by the clock"
        )
        if TOLERANCE[0] <= measured / asked <= TOLERANCE[1]:
            break
        if (
            measured < asked
            and (macs or params or size)
            and step.plan.seconds_ratio < BINDING_FRACTION * budget
        ):
            # Another budget binds, and the network is fast enough.
            break
        budget *= asked * sum(TOLERANCE) / 2 / measured
    # One that is too slow only where all are.
    taken, best = min(
        found,
        key=lambda row: (row[0] > TOLERANCE[1] * asked, abs(row[0] / asked - sum(TOLERANCE) / 2)),
    )
    if taken > TOLERANCE[1] * asked:
        note(
            f"the nearest network takes {taken:.3f} of the input's latency, where {asked:.3f} was asked"
        )
    return best


def bench_networks(
    *networks: tuple[Spec, nn.Module], runs: int = RUNS, images: FaceDataset | None = None
) -> BenchResult:
    """Time networks in ONNX Runtime, one image on one thread, in turns; `images` instead of noise, if given."""
    from fertool.artifact.atomic import temporary_folder
    from fertool.config.exporting import ExportConfig
    from fertool.export import export_model
    from fertool.report.console import progress
    from fertool.runtime import BenchConfig, bench

    with temporary_folder() as folder:
        files = [folder / f"{number}.onnx" for number in range(len(networks))]
        for file, (spec, module) in zip(files, networks, strict=True):
            file.write_bytes(export_model(spec, module, ExportConfig()))
        shown = None if images is None else (lambda _: images.images[:SHOWN].numpy())
        with progress("latency", brief=True) as on_progress:
            return bench(files, BenchConfig(runs=runs, threads=1, memory=False), shown, on_progress)
