"""Prune a model: remove channels until a budget is met, and fine-tune what remains."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import UNSET

from fertool.config.option import configured, values_of
from fertool.config.pictures import PrunePictures
from fertool.config.pruning import PruneConfig
from fertool.config.run import RunConfig
from fertool.errors import UsageError
from fertool.reporter import SILENT, Reporter
from fertool.results import Change, Epoch, PruneResult, UnlabeledChange
from fertool.workflows.comparison import (
    measure_changes,
    measure_unlabeled,
    note_time,
    warn_of_unlabeled,
    with_measured,
)
from fertool.workflows.data import Data, validation_of
from fertool.workflows.model import Model
from fertool.workflows.outputs import as_path, require_outputs, state_path
from fertool.workflows.pictures import draw_pruning, require_pictures
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.pruning_requirements import require_curves, require_data, require_processes
from fertool.workflows.pruning_schedules import ScheduleTrainer
from fertool.workflows.pruning_session import SessionOpener, sessions_of
from fertool.workflows.recovery import recovery_objective
from fertool.workflows.routing import recalibrate_cascade
from fertool.workflows.training_run import TrainingRun

if TYPE_CHECKING:
    from torch import Tensor

    from fertool.data.dataset import FaceDataset
    from fertool.data.source import DataSource
    from fertool.pruning import AnySession, PrunePlan, PruningSession, Schedule, Trainer
    from fertool.spec import ProvenanceStep


@dataclass(frozen=True, eq=False, kw_only=True)
class PrunedModel(Model):
    """A pruned model, and what pruning did to the model `before`.

    `plan` leads from one to the other; of a dynamic network it is that of the widest profile.
    `change` has the accuracies on the validation images with their paired comparison and the
    latencies. Without data `unlabeled` has what can be measured on drawn faces instead, and there
    is no `history` of trainings.
    """

    before: Model
    plan: PrunePlan
    change: Change
    unlabeled: UnlabeledChange | None
    history: list[Epoch]

    @property
    def summary(self) -> PruneResult:
        """What the command prints."""
        return PruneResult.of(
            self.path,
            self.size_bytes,
            self.spec,
            history=tuple(self.history) if self.unlabeled is None else UNSET,
            plan=self.plan.summary,
            change=self.change,
            unlabeled=self.unlabeled,
        )


def prune(
    model: Model,
    data: Data | None = None,
    config: PruneConfig = PruneConfig(),
    *,
    output: str | Path | None = None,
    bench: bool = True,
    pictures: PrunePictures = PrunePictures(),
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> PrunedModel:
    """Remove the least important channels until a budget is met, then fine-tune for `epochs`.

    The training images score the channels, the validation images measure the accuracy before and
    after; without `data` the weights alone decide. With an `output` the model is written there,
    with the history of the trainings beside it, and a killed training resumes. `bench` measures the
    latency of both networks in ONNX Runtime. `options` are those of `PruneConfig`, `PrunePictures`
    and `RunConfig`, by name: `prune(model, data, flops=0.5, epochs=6)`.

    Of a dynamic network every profile keeps the fraction that the budget leaves, and what chooses
    among them stays; a cascade's thresholds are calibrated anew, for the same shares.

    Raises FertoolError for a model that is quantized already, and for a budget that cannot be met;
    UsageError for a wrong option.
    """
    config, pictures, run = configured(config, options, pictures, run)
    require_curves(pictures, config)
    work = _Pruning(model, data, config, run, reporter, as_path(output))
    require_pictures(pictures, work.output, work.input_files)
    pruned = work.prune(bench=bench)
    draw_pruning(pictures, pruned)
    return pruned


def plan_pruning(
    model: Model,
    data: Data | None = None,
    config: PruneConfig = PruneConfig(),
    *,
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> list[PrunePlan]:
    """Return the plan that `prune` carries out; with several profiles one for each, widest first.

    Nothing is trained. The arguments and errors are those of `prune`; raises UsageError too where
    only the accuracy limits what is removed.
    """
    config, run = configured(config, options, run)
    return _Pruning(model, data, config, run, reporter).plan()


@dataclass(frozen=True)
class _Pruning:
    """One pruning of a model."""

    model: Model
    data: Data | None
    config: PruneConfig
    run: RunConfig
    reporter: Reporter
    output: Path | None = None

    @property
    def input_files(self) -> list[Path]:
        """The files that are read: none of them may become an output."""
        if self.data is None:
            return self.model.files
        return [*self.model.files, *self.data.files]

    def plan(self) -> list[PrunePlan]:
        require_processes(self.config, is_preview=True)
        self._require_possible()
        plans = []
        for session in sessions_of(self._open_session(state=None)):
            plans += self.schedule.preview(session)
        if not plans:
            raise UsageError(
                "no budget to plan for",
                "``max_drop`` finds one only by pruning; give ``target_flops``",
            )
        return plans

    def prune(self, *, bench: bool) -> PrunedModel:
        from fertool import distributed

        require_processes(self.config)
        if self.output is not None:
            require_outputs(self.output, self.input_files, trains=self.config.trains)
        self._require_possible()
        state = None
        if self.output is not None and self.config.trains:
            state = state_path(self.output, ".latency")
        session = self._open_session(state)
        if self.schedule.trains_first:
            # Better an error now than after the trainings.
            session.require_reachable()
        step = make_step(
            "prune",
            self._recorded(),
            self.run.seed,
            model=self.model.spec.digest,
            data=self.scoring,
        )
        pruned, history, logits = self._run_schedule(session, step)
        change = Change()
        unlabeled = None
        # Times and accuracies are measured once: other processes have the same network and share
        # the cores.
        if distributed.is_main_process():
            after = Model(pruned.spec, session.module)
            change, unlabeled = self._measure(after, logits, bench=bench)
        return PrunedModel(
            pruned.spec,
            pruned.module,
            pruned.path,
            before=self.before,
            plan=session.plan,
            change=change,
            unlabeled=unlabeled,
            history=history,
        )

    @cached_property
    def schedule(self) -> Schedule:
        from fertool.pruning import load_schedule

        scheduling = self.config.scheduling
        return load_schedule(scheduling.schedule, self.config.training.epochs, **scheduling.options)

    @cached_property
    def before(self) -> Model:
        """The model with its costs as they are: those in a header, nothing has checked."""
        from fertool import cost

        # A budget is a fraction of these figures, so that a wrong header would prune to a wrong
        # size.
        counted = cost.count(self.model.module, self.model.input)
        spec = replace(self.model.spec, params=counted.params, macs=counted.macs)
        return replace(self.model, spec=spec)

    @cached_property
    def source(self) -> DataSource | None:
        if self.data is None:
            return None
        return self.data.fitted_to(self.model)

    @cached_property
    def val(self) -> FaceDataset | None:
        if self.source is None:
            return None
        return validation_of(self.source)

    @cached_property
    def scoring(self) -> FaceDataset | None:
        """The images that score the channels."""
        if self.source is None:
            return None
        count = self.config.selection.scoring_images
        # Balanced, since in common data sets a rare class would hardly count in the scores.
        return self.source.split("train").balanced_subset(count, self.run.seed)

    def _require_possible(self) -> None:
        """Raise UsageError, before anything is read, for what cannot work."""
        require_data(self.config, has_data=self.data is not None)
        self.config.require_budget()

    def _open_session(self, state: Path | None) -> AnySession:
        opener = SessionOpener(
            self.before,
            self.config,
            self.schedule,
            self.scoring,
            state,
            self.run.resume,
            self.reporter,
        )
        return opener.open()

    def _run_schedule(
        self, session: AnySession, step: ProvenanceStep
    ) -> tuple[Model, list[Epoch], Tensor | None]:
        """Prune and train; returns the model as its file has it, and the history.

        Also its logits on the validation images, where they had to be computed.
        """
        from fertool.pruning import NoTrainer, PruningSession

        if self.source is None or self.val is None or self.scoring is None:
            self._run(session, NoTrainer())
            pruned = Model(session.spec.with_step(step), session.module)
            return pruned.finished(self.output), [], None
        training = TrainingRun(
            train=self.source.split("train"),
            val=self.val,
            config=self.config.training,
            loss_config=self.config.loss,
            run=self.run,
            output=self.output,
            reporter=self.reporter,
        )
        objective = recovery_objective(self.before, training, distill=self.config.distill)
        trainer = ScheduleTrainer(training, self.scoring, objective)
        self._run(session, trainer)
        if isinstance(session, PruningSession):
            self._note_remaining_budget(session)
        logits = None
        if session.spec.metrics is None:
            session.spec, logits = with_measured(
                session.spec, session.module, self.val, self.reporter
            )
        pruned = training.finish(session.spec, session.module, step, trainer.history)
        return pruned, trainer.history, logits

    def _run(self, session: AnySession, trainer: Trainer) -> None:
        from fertool.pruning import ProfileSchedule, PruningSession

        if isinstance(session, PruningSession):
            self.schedule.run(session, trainer)
            return
        assert isinstance(self.schedule, ProfileSchedule)
        self.schedule.run_profiles(session, trainer)
        # Their margins have changed with the weights, and the measures are of before.
        gates = recalibrate_cascade(session.spec, session.module, self.val)
        session.spec = replace(session.spec, gates=gates, metrics=None)

    def _note_remaining_budget(self, session: PruningSession) -> None:
        """Note where the limit of the accuracy was reached before the budget."""
        rest = session.remaining_budget()
        if rest is None or self.config.scheduling.options.get("max_drop") is None:
            return
        ratios = [f"{ratio:.2f}" for ratio in rest.ratios if ratio is not None]
        self.reporter.note(
            f"``max_drop`` ended it before the budget, which asks for {' and '.join(ratios)} of "
            "what is left"
        )

    def _recorded(self) -> dict[str, Any]:
        """Return the options for the provenance, those of training only where there is one."""
        # Budgets as they were given: 0.5 and 20M are different requests.
        recorded = {**values_of(self.config), **self.config.budget.texts}
        if self.config.trains:
            recorded.update(self.config.scheduling.options)
        else:
            # A file that nothing trained must not differ by options that had no effect.
            for name in (*values_of(self.config.training), *values_of(self.config.loss)):
                del recorded[name]
        if self.data is None:
            return recorded_options(recorded)
        return recorded_options(recorded, self.data.read)

    def _measure(
        self, after: Model, logits: Tensor | None, *, bench: bool
    ) -> tuple[Change, UnlabeledChange | None]:
        """Return what has changed, and without data what can be measured without labels."""
        change = measure_changes(
            self.before, after, self.val, bench=bench, logits=logits, reporter=self.reporter
        )
        unlabeled = None
        if self.val is None:
            unlabeled = measure_unlabeled(self.before, after, self.reporter)
            warn_of_unlabeled(after, unlabeled, self.reporter)
        # A budget of MACs alone is often meant as one of time.
        budget = self.config.budget
        is_only_flops = budget.target_latency is None and not self.config.selection.prune_blocks
        if budget.target_flops is not None and is_only_flops and not after.spec.gates:
            note_time(after.spec.macs / self.before.spec.macs, change, self.reporter)
        return change, unlabeled
