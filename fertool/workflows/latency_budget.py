"""Budgets of latency: a model of this machine, and the budget by it that measurements confirm."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from msgspec import Meta

from fertool.reporter import SILENT, Reporter
from fertool.strict_json import Finite, Name
from fertool.workflows.network_latency import bench_networks
from fertool.workflows.targets import SECONDS, is_ratio, parse_target

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.pruning import SelectionConfig
    from fertool.data.dataset import FaceDataset
    from fertool.graph.network import Network
    from fertool.pruning import Constraints, LatencyModel, PruningStep
    from fertool.spec import Spec

Channels = Annotated[int, Meta(ge=1, le=65_536)]
_Ratio = Annotated[float, Meta(gt=0, lt=1)]

ATTEMPTS = 6
"""Networks that are pruned and timed for one budget; each takes some seconds."""
TOLERANCE = (0.94, 1.01)
"""A measured network is what was asked for within these fractions of the budget."""
BINDING_FRACTION = 0.98
"""A budget of which less is used up did not decide."""
_MIN_ROUND_TO = 8


def learn_latency_model(spec: Spec, module: Network, reporter: Reporter = SILENT) -> LatencyModel:
    """Return a model of this machine's latency, of one image in ONNX Runtime on one thread.

    It is fitted to the times by layer of networks of other widths with random weights.
    """
    from fertool.config.exporting import ExportConfig
    from fertool.exporting import export_model
    from fertool.graph.channels import trace_channels
    from fertool.graph.groups import find_groups
    from fertool.graph.surgery import resize
    from fertool.models import with_random_weights
    from fertool.pruning import learn_latency
    from fertool.runtime.layer_times import time_layers

    graph = trace_channels(module)
    groups = find_groups(graph)

    def profile(sizes: Mapping[str, int]) -> Any:
        narrow = with_random_weights(resize(module, graph, groups, sizes))
        narrow_spec = replace(spec, graph=narrow.graph)
        content = export_model(narrow_spec, narrow, ExportConfig(simplify=False))
        return time_layers(content), trace_channels(narrow)

    with reporter.progress("latency table") as on_progress:
        model = learn_latency(groups.as_map(), profile, on_progress)
    reporter.note(f"latency grows in steps of {model.granularity} channels here")
    return model


@dataclass(frozen=True)
class LatencySearch:
    """The search for a budget by the latency model whose network measures the asked time.

    `spec` and `module` are the network to prune, `scoring` the images that score its channels.
    """

    spec: Spec
    module: Network
    constraints: Constraints
    selection: SelectionConfig
    scoring: FaceDataset | None
    reporter: Reporter = SILENT

    def run(
        self, text: str, *, state: Path | None, resume: bool
    ) -> tuple[Constraints, SelectionConfig]:
        """Return the constraints with the latency model and its budget, and the rounding.

        `text` is ``target_latency``. What was measured stays in the file `state`, if one is named,
        so that a killed training can `resume` with the same network; the caller removes it.
        """
        from fertool.artifact.resume_file import discard_resume
        from fertool.artifact.resume_state import (
            load_state,
            parse_header,
            save_state,
            wrapping_state_errors,
        )
        from fertool.pruning import require_scorable

        require_scorable(self.spec, self.selection, has_data=self.scoring is not None)
        fingerprint = self._fingerprint(text)
        # A state of an earlier run would otherwise be found by the next one that resumes.
        if state and not resume:
            discard_resume(state)
        if state and (known := load_state(state, fingerprint)):
            self.reporter.note("the latencies are those that the killed run measured")
            with wrapping_state_errors(state):
                return parse_header(known[0], _Measured).applied(self)
        asked = asked_ratio(text, self.spec, self.module, self.reporter)
        found = self._measured(asked)
        if state:
            save_state(state, fingerprint, asdict(found), {})
        return found.applied(self)

    def _fingerprint(self, text: str) -> str:
        """Return the digest of all that the search depends on."""
        from fertool.header_json import canonical_json, digest_text

        # The scores, and by them the widths that are timed, follow from these images.
        images = self.scoring.digest if self.scoring else ""
        described = [
            text,
            self.spec.digest,
            asdict(self.constraints),
            asdict(self.selection),
            images,
        ]
        return digest_text(canonical_json(described))

    def _measured(self, asked: float) -> _Measured:
        model = learn_latency_model(self.spec, self.module, self.reporter)
        round_to = self.selection.round_to
        if round_to and round_to < model.granularity:
            self.reporter.note(
                f"``round_to={round_to}``: widths between two multiples of {model.granularity} "
                "are no faster here"
            )
        # Narrower steps cost channels and save no time.
        round_to = round_to or max(_MIN_ROUND_TO, model.granularity)
        constraints = fit_latency_budget(
            asked,
            self.spec,
            self.module,
            replace(self.constraints, latency=model),
            replace(self.selection, round_to=round_to),
            self.scoring,
            self.reporter,
        )
        assert constraints.targets is not None
        assert constraints.targets.latency is not None
        targets = _Targets(**asdict(constraints.targets))
        return _Measured(model.granularity, model.terms, model.rest, round_to, targets)


@dataclass(frozen=True)
class _Targets:
    """The budgets as fractions of the given network's cost; one of latency there always is."""

    latency: _Ratio
    macs: _Ratio | None = None
    params: _Ratio | None = None
    size: _Ratio | None = None
    channels: _Ratio | None = None


@dataclass(frozen=True)
class _Measured:
    """What OUT.latency.resume keeps: a latency model, its rounding, and the budgets by it."""

    granularity: Channels
    terms: Mapping[Name, tuple[Finite, Finite, Finite, Finite]]
    rest: Finite
    round_to: Channels
    targets: _Targets

    def applied(self, search: LatencySearch) -> tuple[Constraints, SelectionConfig]:
        """Return the constraints and the selection of a search with what was measured."""
        from fertool.pruning import LatencyModel, Targets

        model = LatencyModel(self.granularity, self.terms, self.rest)
        targets = Targets(**asdict(self.targets))
        constraints = replace(search.constraints, latency=model, targets=targets)
        return constraints, replace(search.selection, round_to=self.round_to)


def asked_ratio(text: str, spec: Spec, module: nn.Module, reporter: Reporter = SILENT) -> float:
    """Return ``target_latency`` as a fraction of the network's own latency, measured if need be."""
    if is_ratio(text):
        return parse_target("target_latency", text, 1.0, SECONDS)
    (own,) = bench_networks((spec, module), reporter=reporter).results
    return parse_target("target_latency", text, own.latency_s.median, SECONDS)


def fit_latency_budget(
    asked: float,
    spec: Spec,
    module: Network,
    constraints: Constraints,
    selection: SelectionConfig,
    data: FaceDataset | None,
    reporter: Reporter = SILENT,
) -> Constraints:
    """Return the constraints with a latency budget whose network takes the fraction `asked`.

    The latency model knows the layers, not what the runtime makes of the whole: networks are
    pruned, timed interleaved with the unpruned one, and the budget is corrected, until the time is
    right; the best attempt counts. Raises UnreachableError when the narrowest network takes longer.
    """
    from fertool.pruning import Targets, UnreachableError, plan_step, score_channels

    with reporter.progress("scores") as on_progress:
        scored = score_channels(spec, module, selection, data, on_progress)
    # Reconstructed weights take no other time.
    unreconstructed = replace(selection, reconstruct=False)
    given = constraints.targets
    budget = asked
    found: list[tuple[float, Constraints]] = []
    for _ in range(ATTEMPTS):
        latency = min(budget, 1 - 1e-9)
        targets = replace(given, latency=latency) if given else Targets(latency=latency)
        tried = replace(constraints, targets=targets)
        try:
            step = plan_step(spec, module, tried, unreconstructed, data, scored=scored)
        except UnreachableError:
            # The first budget is the one that was asked for; later ones are corrections of it.
            if not found:
                raise
            _require_fast_enough(found, asked)
            break
        measured = _measured_ratio(spec, module, step, reporter)
        found.append((measured, tried))
        reporter.note(
            f"a budget of {budget:.3f} by the latency model is {measured:.3f} of the input's "
            "latency, measured"
        )
        if TOLERANCE[0] <= measured / asked <= TOLERANCE[1]:
            break
        uses_it_up = step.plan.seconds_ratio >= BINDING_FRACTION * budget
        if measured < asked and given and not uses_it_up:
            # Another budget binds, and the network is fast enough.
            break
        # Towards the middle of the tolerance, so that noise of the times leads out of it less
        # often.
        budget *= asked * sum(TOLERANCE) / 2 / measured
    return _best_attempt(found, asked, reporter)


def _measured_ratio(spec: Spec, module: Network, step: PruningStep, reporter: Reporter) -> float:
    """Return the latency of the network that a step makes, as a fraction of the unpruned one's."""
    smaller = step.apply(module)
    pruned = (replace(spec, graph=smaller.graph), smaller)
    (pair,) = bench_networks((spec, module), pruned, reporter=reporter).comparisons
    return 1 / pair.speedup


def _require_fast_enough(found: list[tuple[float, Constraints]], asked: float) -> None:
    """Raise UnreachableError where all attempts took longer than asked."""
    from fertool.pruning import UnreachableError

    fastest = min(measured for measured, _ in found)
    if fastest > TOLERANCE[1] * asked:
        raise UnreachableError(
            f"``target_latency``: {asked:.2f} of the time is out of reach, the narrowest network "
            f"that was found takes {fastest:.2f}",
            "ask for more, or lower ``round_to``",
        ) from None


def _best_attempt(
    found: list[tuple[float, Constraints]], asked: float, reporter: Reporter
) -> Constraints:
    """Return the attempt nearest to the middle of the tolerance, if possible a fast enough one."""

    def distance(attempt: tuple[float, Constraints]) -> tuple[bool, float]:
        measured, _ = attempt
        is_too_slow = measured > TOLERANCE[1] * asked
        # False sorts first: of a slower and a faster network as near as it, the faster one meets
        # the budget.
        return is_too_slow, abs(measured / asked - sum(TOLERANCE) / 2)

    measured, best = min(found, key=distance)
    if measured > TOLERANCE[1] * asked:
        reporter.note(
            f"the nearest network takes {measured:.3f} of the input's latency, where {asked:.3f} "
            "was asked"
        )
    return best
