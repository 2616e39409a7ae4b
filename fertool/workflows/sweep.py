"""The same training with several seeds and options, of which the best model is kept.

A sweep is a list of trials. Each is an ordinary training with a file of its own beside the output,
so that its model has the bytes that the same options would give alone; a result in OUT.seeds.json
or OUT.grid.json tells that it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import require_writable, temporary_folder, write_atomic
from fertool.config.distillation import DistillConfig
from fertool.config.option import configured
from fertool.config.pictures import CurvePictures
from fertool.config.run import RunConfig
from fertool.config.sweep import Axes, SweepConfig, Value, sweep_config, with_options
from fertool.config.train_teacher import TrainTeacherConfig
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, Reporter
from fertool.results import ConfigSummary, SweepResults, TrainingResult, TrialResult
from fertool.workflows.distill import StudentTask, distill
from fertool.workflows.model import Model, load
from fertool.workflows.outputs import history_path, require_outputs, write_history
from fertool.workflows.pictures import draw_sweep, require_pictures
from fertool.workflows.processes import require_one_process
from fertool.workflows.sweep_results import SweepFile, fingerprint, trial_result
from fertool.workflows.train import TeacherTask, train
from fertool.workflows.training_task import (
    PreparedTraining,
    Trained,
    TrainedModel,
    TrainingTask,
)

_NO_MORE = -1
"""What stands for a trial when all are done."""
_TASKS: Mapping[Callable[..., Any], tuple[type[Any], Callable[..., TrainingTask]]] = {
    train: (TrainTeacherConfig, TeacherTask),
    distill: (DistillConfig, StudentTask),
}
"""The options and the trainings of each workflow that can be repeated."""


@dataclass(frozen=True, eq=False)
class SweepResult(TrainedModel):
    """The best model of a sweep, with the results of all trials."""

    results: SweepResults = field(kw_only=True)

    @property
    def trials(self) -> tuple[TrialResult, ...]:
        """The finished trainings, best first."""
        return self.results.rows

    @property
    def summaries(self) -> tuple[ConfigSummary, ...]:
        """The mean over the seeds of each choice of options, best first."""
        return self.results.points

    @property
    def summary(self) -> TrainingResult:
        """What the command prints: the same as of one training, and the results."""
        return replace(super().summary, sweep=self.results.summary)


def sweep(
    function: Callable[..., TrainedModel],
    *inputs: Any,
    seeds: Sequence[int] | None = None,
    grid: Mapping[str, Sequence[Value]] | None = None,
    output: str | Path | None = None,
    config: Any = None,
    pictures: CurvePictures = CurvePictures(),
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> SweepResult:
    """Return the best model of the same training with several seeds, and with a grid of options.

    `function` is `train` or `distill`, and `inputs` are what it takes: `sweep(train, data,
    seeds=[0, 1, 2], grid={"lr": (1e-3, 2e-3)}, epochs=10, output="best.pt")`. The best choice of
    options by the mean validation accuracy counts, and of it the best seed. With an `output` the
    results are written to OUT.seeds.json or OUT.grid.json, models beside it, and a killed sweep
    resumes without training again what is finished.

    Raises UsageError for a wrong option, FertoolError for inputs and files that cannot be used.
    """
    if function not in _TASKS:
        name = getattr(function, "__name__", str(function))
        raise UsageError(f"sweep({name}): repeats train and distill only", "give one of them")
    config_type, make_task = _TASKS[function]
    if config is None:
        config = config_type()
    config, pictures, run = configured(config, options, pictures, run)
    asked = sweep_config(config, seeds, grid)
    task = make_task(*inputs, config, run, reporter)
    # Without an output the trials still need files, since the best is chosen at the end.
    if output is not None:
        return _sweep(task, asked, Path(output), pictures)
    require_one_process("a sweep without ``output``")
    with temporary_folder() as folder:
        return replace(_sweep(task, asked, folder / "best.pt", pictures), path=None)


def _sweep(
    task: TrainingTask, asked: SweepConfig, output: Path, pictures: CurvePictures
) -> SweepResult:
    from fertool import distributed

    plan = SweepPlan(output, asked.axes, asked.seeds or (task.run.seed,))
    plan.require_outputs(task.input_files)
    task.require_outputs(output)
    require_pictures(pictures, output, task.input_files)
    task.require_inputs()
    task.open(output)
    for axis in plan.axes:
        if axis.replace("-", "_") in task.fixed_options:
            raise UsageError(
                f"``grid={axis}=…``: a recording of teachers fixes it",
                f"take {axis} out of the grid",
            )

    def prepare(trial: Trial) -> PreparedTraining:
        config = with_options(task.config, trial.options)
        return task.prepare(config, replace(task.run, seed=trial.seed), trial.output)

    # Results and models are files of the first process; the others only share in its trainings.
    if not distributed.is_main_process():
        return _result_of_other_process(plan, join_trials(plan, prepare))
    file = run_trials(plan, prepare, resume=task.run.resume, reporter=task.reporter)
    # The other processes wait for the number of the next training.
    distributed.broadcast_scalars([_NO_MORE])
    best = file.best
    # Read back, since the best training may have been one of a run that was killed before.
    model = load(output)
    result = SweepResult(
        model.spec, model.module, model.path, list(best.history), results=file.results
    )
    options = with_options(task.config, best.options)
    task.complete(result, options, replace(task.run, seed=best.seed))
    draw_sweep(pictures, result.results)
    return result


@dataclass(frozen=True)
class Trial:
    """One training: the options that differ from the sweep's own, by their names in recipes."""

    options: Mapping[str, Value]
    seed: int
    output: Path


@dataclass(frozen=True)
class SweepPlan:
    """The trials of a sweep, and their files."""

    output: Path
    axes: Axes
    seeds: tuple[int, ...]

    @property
    def path(self) -> Path:
        """The file of the results."""
        kind = "grid" if self.axes else "seeds"
        return self.output.with_name(f"{self.output.name}.{kind}.json")

    def file(self) -> SweepFile:
        """Return the file of the results, without any."""
        return SweepFile(self.path, self.output, self.axes, self.seeds)

    @property
    def trials(self) -> list[Trial]:
        """The trainings in their order: all seeds of one combination, then those of the next."""
        trials = []
        for options in SweepConfig(self.seeds, self.axes).combinations():
            for seed in self.seeds:
                trials.append(Trial(options, seed, self.output_of(options, seed)))
        return trials

    def output_of(self, options: Mapping[str, Value], seed: int) -> Path:
        """Return the file of a trial's model: OUT.lr-0.001.seed0.pt."""
        from fertool.report.units import value_text

        parts = [f"{name}-{value_text(value)}" for name, value in options.items()]
        if len(self.seeds) > 1 or not options:
            parts.append(f"seed{seed}")
        stem, suffix = self.output.stem, self.output.suffix
        return self.output.with_name(f"{stem}.{'.'.join(parts)}{suffix}")

    def require_outputs(self, inputs: Sequence[Path]) -> None:
        """Raise FertoolError when a file cannot be written or would replace an input."""
        require_writable(self.path, *inputs)
        # All at the start: a grid runs for hours, and a name that is taken must not end it midway.
        for path in (self.output, *(trial.output for trial in self.trials)):
            require_outputs(path, inputs, trains=True)


def run_trials(
    plan: SweepPlan,
    prepare: Callable[[Trial], PreparedTraining],
    *,
    resume: bool,
    reporter: Reporter,
) -> SweepFile:
    """Train what is not finished yet, and write the best model and all results.

    Of several processes the first one decides what to train, and calls this.
    """
    # Before any training: a result is found by the step that it would record.
    prepared = [(trial, prepare(trial)) for trial in plan.trials]
    file = plan.file()
    if resume:
        file.resume({fingerprint(each.step): trial.options for trial, each in prepared})
    for number, (trial, training) in enumerate(prepared, start=1):
        title = f"training {number} of {len(prepared)}: {_label(trial)}"
        finished = file.result_of(training.step)
        if finished is not None:
            reporter.note(f"{title}: finished, accuracy {_percent(finished.accuracy)}")
        else:
            reporter.note(title)
            _train(file, plan, trial, training)
        # After each training, not at the end: a disk may not hold all of them.
        _remove_beaten(file, plan)
    _keep_best(file, plan, prepared, reporter)
    return file


def join_trials(plan: SweepPlan, prepare: Callable[[Trial], PreparedTraining]) -> Trained | None:
    """Take part in each training that the first process begins; returns the last one, if any."""
    from fertool import distributed

    trained = None
    trials = plan.trials
    while True:
        number = int(distributed.broadcast_scalars([_NO_MORE])[0])
        if number == _NO_MORE:
            return trained
        trained = prepare(trials[number]).fit()


def _train(file: SweepFile, plan: SweepPlan, trial: Trial, training: PreparedTraining) -> None:
    """Train one trial; killed at any moment, either its state or its result is there."""
    from fertool import distributed

    distributed.broadcast_scalars([plan.trials.index(trial)])
    run, spec, module, history = training.fit()
    written = run.save(Model(spec.with_step(training.step), module), history)
    file.add(trial_result(trial.options, training.step, written.spec, history))
    # After the result is on the disk: killed in between, the training resumes at its last epoch.
    run.discard_states()


def _remove_beaten(file: SweepFile, plan: SweepPlan) -> None:
    """Remove the models of combinations that are finished and not the best.

    A grid of teachers would fill a disk.
    """
    for summary in file.summaries[1:]:
        for seed in plan.seeds:
            _remove(plan.output_of(summary.options, seed))


def _keep_best(
    file: SweepFile,
    plan: SweepPlan,
    prepared: Sequence[tuple[Trial, PreparedTraining]],
    reporter: Reporter,
) -> None:
    """Write the best model to the output, trained again where its file is gone or damaged."""
    content = None
    while content is None:
        best = file.best
        trial, training = _trial_of(prepared, best)
        # A sweep that ended may have moved the best model to the output and removed its own file.
        content = _content(trial.output, best) or _content(plan.output, best)
        if content is None:
            # Trained again on a GPU it may come out a little worse, and no longer be the best.
            reporter.note(f"its model is gone; training it again: {_label(trial)}")
            _train(file, plan, trial, training)
    write_atomic(plan.output, content)
    write_history(plan.output, best.history)
    # With several seeds the models of the best options all stay, the best one among them.
    if len(plan.seeds) == 1 and plan.axes:
        _remove(trial.output)
    file.finished = True
    file.write()


def _trial_of(
    prepared: Sequence[tuple[Trial, PreparedTraining]], result: TrialResult
) -> tuple[Trial, PreparedTraining]:
    """Return the trial that a result is of."""
    for trial, training in prepared:
        if fingerprint(training.step) == result.fingerprint:
            return trial, training
    raise AssertionError("a result is of a trial of this sweep")


def _result_of_other_process(plan: SweepPlan, trained: Trained | None) -> SweepResult:
    """Return what a process that is not the first one knows: the last training that it shared."""
    results = plan.file().results
    if trained is None:
        model = load(plan.output)
        return SweepResult(model.spec, model.module, model.path, results=results)
    return SweepResult(trained.spec, trained.module, None, trained.history, results=results)


def _label(trial: Trial) -> str:
    from fertool.report.units import value_text

    parts = [f"{name} {value_text(value)}" for name, value in trial.options.items()]
    return ", ".join([*parts, f"seed {trial.seed}"])


def _percent(accuracy: float) -> str:
    from fertool.report.units import percent_text

    return percent_text(accuracy)


def _content(path: Path, result: TrialResult) -> bytes | None:
    """Return the bytes of a model file if it is, undamaged, the model of a trial."""
    from fertool.artifact import store

    try:
        # By the digest: the name may hold the model of another sweep.
        is_model = store.load(path).spec.digest == result.digest
        return path.read_bytes() if is_model else None
    except (FertoolError, OSError):
        return None


def _remove(model: Path) -> None:
    model.unlink(missing_ok=True)
    history_path(model).unlink(missing_ok=True)
