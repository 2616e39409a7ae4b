"""`--seeds` and `--grid`: the same training several times, where a killed run goes on, and the best one kept.

A sweep is a list of trials. Each is an ordinary training under a name of its own beside the output, so that its model
has the bytes that the same options would give alone; a row in OUT.seeds.json or OUT.grid.json says that it is done.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from types import UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import typer

from fertool.cli.ledger import Axes, Ledger, Row, Value, fingerprint
from fertool.cli.options import TrainingOptions
from fertool.cli.splits import refused_split
from fertool.cli.training import (
    History,
    TrainingRun,
    history_path,
    require_outputs,
    write_history,
)
from fertool.config.option import types_of, with_values
from fertool.config.training import TRAINING
from fertool.errors import FertoolError, UsageError, unknown_name

if TYPE_CHECKING:
    from _typeshed import DataclassInstance
    from torch import nn

    from fertool.spec import ProvenanceStep, Spec

Group = TypeVar("Group", bound="DataclassInstance")

_GIVEN = {"COMMANDLINE": 2, "DEFAULT_MAP": 1}
"""Where a value comes from: a flag wins over a recipe, a recipe over the default."""
_NO_MORE = -1
"""What stands for a trial when all are done."""


@dataclass(frozen=True)
class SweepOptions:
    """What is to be trained more than once."""

    seeds: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,…",
            help="Train once with each, for example 0,1,2: mean and standard deviation; rows in OUT.seeds.json, models "
            "beside -o, the best by validation in -o.",
            rich_help_panel=TRAINING,
        ),
    ] = None
    grid: Annotated[
        str | None,
        typer.Option(
            metavar="NAME=V,V;…",
            help="Train with every combination of options, for example 'lr=1e-3,2e-3;ema-decay=0,0.99': rows in "
            "OUT.grid.json, the best by validation in -o.",
            rich_help_panel=TRAINING,
        ),
    ] = None


@dataclass(frozen=True)
class Trial:
    """One training: the options that differ from the command's own, by flag name; its seed; where its model goes."""

    options: Mapping[str, Value]
    seed: int
    output: Path

    def of(self, group: Group) -> Group:
        """Return the command's options with this trial's in their place, as far as they belong to `group`."""
        return with_values(
            group, {name.replace("-", "_"): value for name, value in self.options.items()}
        )


class Trained(NamedTuple):
    """What a trial leaves: the run with its output, and the network of the best epoch."""

    run: TrainingRun
    spec: Spec
    module: nn.Module
    history: History


@dataclass(frozen=True)
class Sweep:
    """All the trainings that one command asks for; without --seeds and --grid a single one, straight to `output`."""

    output: Path
    axes: Axes
    seeds: tuple[int, ...]
    single: bool

    @property
    def trials(self) -> list[Trial]:
        """The trainings in their order: all seeds of one combination, then those of the next."""
        return [
            Trial(options, seed, self.output if self.single else self._place(options, seed))
            for options in self._combinations()
            for seed in self.seeds
        ]

    @property
    def path(self) -> Path:
        """Where the rows are kept."""
        return self.output.with_name(f"{self.output.name}.{'grid' if self.axes else 'seeds'}.json")

    def require_outputs(self, training: TrainingOptions, *inputs: Path) -> None:
        """Fail before any work when a file cannot be written or would replace an input."""
        from fertool.artifact.atomic import require_writable

        require_outputs(self.output, training, *inputs)
        if not self.single:
            require_writable(self.path, *inputs)
            for trial in self.trials:
                require_outputs(trial.output, replace(training, plot=None), *inputs)

    def refuse_axes(self, names: Collection[str], why: str) -> None:
        """Raise UsageError when one of these options (by field name) is an axis of the grid."""
        for name in self.axes:
            if name.replace("-", "_") in names:
                raise UsageError(f"--grid {name}=…: {why}", f"take {name} out of --grid")

    def carry_out(
        self,
        describe: Callable[[Trial], ProvenanceStep],
        train: Callable[[Trial], Trained],
        training: TrainingOptions,
        json: bool,
    ) -> Trial:
        """Train what is not finished yet, write the best model to `output`, say what came out, and return its trial.

        `describe` gives the step that a trial's model will record, without any work; `train` does the work. Of several
        processes the first one decides what to train.
        """
        from fertool import distributed

        if self.single:
            (trial,) = self.trials
            step = describe(trial)
            run, spec, module, history = train(trial)
            run.finish(spec, module, step, history, json)
            return trial
        if not distributed.is_main_process():
            return _follow(self.trials, train)
        train = _leading(self.trials, train)
        trials = [(trial, describe(trial)) for trial in self.trials]
        ledger = Ledger(self.path, self.output, self.axes, self.seeds)
        if training.resume:
            ledger.resume({fingerprint(step) for _, step in trials})
        for number, (trial, step) in enumerate(trials, start=1):
            _announce(f"training {number} of {len(trials)}: {_label(trial)}", ledger.row(step))
            if ledger.row(step) is None:
                _finish(ledger, trial, step, train)
            self._forget_losers(ledger)
        best = self._keep_best(ledger, trials, train)
        distributed.broadcast_scalars([_NO_MORE])
        self._report(ledger, training, json)
        return best

    def _combinations(self) -> Iterator[dict[str, Value]]:
        return (
            dict(zip(self.axes, values, strict=True)) for values in product(*self.axes.values())
        )

    def _place(self, options: Mapping[str, Value], seed: int) -> Path:
        from fertool.report.units import value_text

        parts = [f"{name}-{value_text(value)}" for name, value in options.items()]
        parts += [f"seed{seed}"] * (len(self.seeds) > 1 or not options)
        return self.output.with_name(f"{self.output.stem}.{'.'.join(parts)}{self.output.suffix}")

    def _forget_losers(self, ledger: Ledger) -> None:
        """Remove the models of combinations that are done and not the best: a grid of teachers would fill a disk."""
        for point in ledger.points[1:]:
            for seed in self.seeds:
                _remove(self._place(point.options, seed))

    def _keep_best(
        self,
        ledger: Ledger,
        trials: list[tuple[Trial, ProvenanceStep]],
        train: Callable[[Trial], Trained],
    ) -> Trial:
        from fertool.artifact.atomic import write_atomic

        while True:
            trial, step = next(pair for pair in trials if ledger.row(pair[1]) == ledger.best)
            content = _content(trial.output, ledger.best) or _content(self.output, ledger.best)
            if content is not None:
                break
            # Trained again on a GPU it may come out a little worse, and no longer be the best.
            _announce(f"its model is gone; training it again: {_label(trial)}")
            _finish(ledger, trial, step, train)
        write_atomic(self.output, content)
        write_history(self.output, ledger.best.history)
        if len(self.seeds) == 1 and self.axes:
            _remove(trial.output)
        ledger.finished = True
        ledger.write()
        return trial

    def _report(self, ledger: Ledger, training: TrainingOptions, json: bool) -> None:
        from fertool.artifact.atomic import write_atomic
        from fertool.artifact.header import read_spec
        from fertool.cli.output import announce
        from fertool.report import tables
        from fertool.report.console import story
        from fertool.report.plots.sweep_accuracy import plot_sweep

        found = ledger.as_json(histories=True)
        if training.plot:
            write_atomic(training.plot, plot_sweep(found))
        story(tables.sweep_table(found))
        announce(
            read_spec(self.output),
            self.output,
            json,
            history=ledger.best.history,
            sweep=ledger.as_json(histories=False),
        )


def plan_sweep(
    context: typer.Context,
    asked: SweepOptions,
    seed: int,
    output: Path,
    training: TrainingOptions,
    *others: Any,
) -> Sweep:
    """Return the trainings that --seed, --seeds and --grid ask for, all their options checked.

    A grid's names are flags of `context`'s command that belong to `training` or `others`. Raises UsageError for a
    name, value or combination that no single training would accept either, and for options that exclude each other.
    """
    seeds = _seeds(context, asked, seed)
    axes = _axes(context, asked.grid, (training, *others)) if asked.grid is not None else {}
    sweep = Sweep(output, axes, seeds or (seed,), single=seeds is None and not axes)
    if not sweep.single:
        for trial in sweep.trials:
            # Every combination is checked as its config is made.
            for group in (training, *others):
                trial.of(group)
    return sweep


def _seeds(context: typer.Context, asked: SweepOptions, seed: int) -> tuple[int, ...] | None:
    """Return the seeds of --seeds, None where --seed counts."""
    if asked.seeds is None or _given(context, "seed") > _given(context, "seeds"):
        return None
    if _given(context, "seed") == _given(context, "seeds"):
        raise UsageError(
            f"--seed {seed} and --seeds {asked.seeds} exclude each other",
            "give all the seeds with --seeds",
        )
    words = [word.strip() for word in asked.seeds.split(",")]
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise UsageError(
            f"--seeds {asked.seeds}: not whole numbers with commas between",
            "for example --seeds 0,1,2",
        )
    seeds = tuple(int(word) for word in words)
    if len(set(seeds)) < len(seeds):
        raise UsageError(
            f"--seeds {asked.seeds}: a seed stands there twice",
            "the same seed gives the same model",
        )
    return seeds


def _axes(
    context: typer.Context, grid: str, groups: tuple[Any, ...]
) -> dict[str, tuple[Value, ...]]:
    """Read `NAME=V,V;NAME=V,V`; every value is converted and checked by the option that it is for."""
    known = {
        parameter.name.replace("_", "-"): parameter
        for parameter in context.command.params
        if parameter.name and parameter.name != "resume" and _is_scalar(groups, parameter.name)
    }
    axes: dict[str, tuple[Value, ...]] = {}
    for part in filter(None, (part.strip() for part in grid.split(";"))):
        name, equals, listed = (text.strip() for text in part.partition("="))
        words = [word.strip() for word in listed.split(",")]
        if not (name and equals and all(words)):
            raise UsageError(
                f"--grid {grid}: '{part}' is not NAME=VALUE,VALUE",
                "for example --grid 'lr=0.001,0.002;ema-decay=0,0.999'",
            )
        if name in {"seed", "seeds"}:
            raise UsageError(
                f"--grid {grid}: a seed is no axis",
                "--seeds 0,1,2 trains every combination so often",
            )
        if refusal := refused_split(context.command.name, name):
            raise refusal
        if name not in known:
            raise unknown_name("option in --grid", name, known)
        if _given(context, known[name].name) == _GIVEN["COMMANDLINE"]:
            raise UsageError(
                f"--{name}: --grid gives its values",
                f"leave --{name} out, or take it out of --grid",
            )
        values = tuple(known[name].process_value(context, word) for word in words)
        if name in axes or len(set(values)) < len(values):
            raise UsageError(
                f"--grid {grid}: '{part}' repeats a name or a value", "name every value once"
            )
        axes[name] = values
    if not axes:
        raise UsageError(f"--grid '{grid}': names no option", "for example --grid 'lr=0.001,0.002'")
    return axes


def _is_scalar(groups: tuple[Any, ...], name: str) -> bool:
    """Say whether `name` is an option of a number, a switch or a choice, even if it may be left out."""
    for kind in (_type_of(group, name) for group in groups):
        parts = get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,)
        if any(part in (bool, int, float) or get_origin(part) is Literal for part in parts):
            return True
    return False


def _type_of(group: Any, name: str) -> Any:
    """Return the type of an option of a group, or of a config that the group holds."""
    return types_of(group).get(name) or get_type_hints(type(group)).get(name)


def _given(context: typer.Context, name: str | None) -> int:
    source = context.get_parameter_source(name) if name else None
    return _GIVEN.get(source.name, 0) if source else 0


def _label(trial: Trial) -> str:
    from fertool.report.units import value_text

    parts = [f"{name} {value_text(value)}" for name, value in trial.options.items()]
    return ", ".join([*parts, f"seed {trial.seed}"])


def _announce(line: str, row: Row | None = None) -> None:
    from fertool.report.console import note
    from fertool.report.units import percent_text

    note(f"{line}: finished, accuracy {percent_text(row.accuracy)}" if row else line)


def _leading(trials: list[Trial], train: Callable[[Trial], Trained]) -> Callable[[Trial], Trained]:
    """Return `train` so that it also tells the other processes which trial begins."""
    from fertool import distributed

    def lead(trial: Trial) -> Trained:
        distributed.broadcast_scalars([trials.index(trial)])
        return train(trial)

    return lead


def _follow(trials: list[Trial], train: Callable[[Trial], Trained]) -> Trial:
    """Take part in each trial that the first process begins, until there are no more; returns the last one."""
    from fertool import distributed

    trial = trials[0]
    while (told := int(distributed.broadcast_scalars([_NO_MORE])[0])) != _NO_MORE:
        trial = trials[told]
        train(trial)
    return trial


def _finish(
    ledger: Ledger, trial: Trial, step: ProvenanceStep, train: Callable[[Trial], Trained]
) -> None:
    """Train one trial; killed at any moment, either its state or its row is there."""
    run, spec, module, history = train(trial)
    written = run.save(spec, module, step, history)
    ledger.add(Row.of(trial.options, step, written, history))
    run.discard()


def _content(path: Path, row: Row) -> bytes | None:
    """Return the bytes of a model file if it is, undamaged, the model of `row`."""
    from fertool.artifact import store

    try:
        return path.read_bytes() if store.load(path).spec.digest == row.digest else None
    except (FertoolError, OSError):
        return None


def _remove(model: Path) -> None:
    model.unlink(missing_ok=True)
    history_path(model).unlink(missing_ok=True)
