"""What every command that trains does around the one loop: options in, progress, metrics and history out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.cli.options import TrainingOptions
from fertool.cli.signals import says_how_to_go_on
from fertool.config.option import values_of

if TYPE_CHECKING:
    from torch import nn

    from fertool.config.training import Keep
    from fertool.data.dataset import FaceDataset
    from fertool.losses import ClassificationLoss
    from fertool.spec import ProvenanceStep, Spec
    from fertool.train import EpochRecord, FitResult, Objective

History = list[dict[str, Any]]


@dataclass(frozen=True)
class Round:
    """A training that is the `number`th on the way to one model; `before` are the epochs of those before it.

    What is printed calls it `label`. One that does not `last` leaves no state: a killed run takes it up from its start.
    """

    number: int
    label: str
    before: History
    lasts: bool = True


@dataclass(frozen=True)
class TrainingRun:
    """One training of one command: on what, how, and for which output file."""

    train: FaceDataset
    val: FaceDataset
    options: TrainingOptions
    output: Path
    seed: int
    device: str
    round: Round | None = None
    keep: Keep = "best"

    @property
    def state(self) -> Path:
        """Where a killed run finds what to go on from, if it may: OUT.resume, or OUT.round-N.resume."""
        return state_path(self.output, "" if self.round is None else f".round-{self.round.number}")

    @property
    def loss(self) -> ClassificationLoss:
        """The loss against the labels that the options name; balanced weights are those of the training images."""
        from fertool.losses import ClassificationLoss, balanced_class_weights

        asked = self.options.loss
        balanced = asked.class_weights == "balanced"
        weights = (
            balanced_class_weights(self.train.targets(), self.train.classes) if balanced else None
        )
        return ClassificationLoss(asked.label_smoothing, asked.focal_gamma, weights)

    def fit(
        self, spec: Spec, module: nn.Module, objective: Objective | None = None
    ) -> tuple[Spec, History]:
        """Train `module` to its best or last epoch, as `keep` says; returns the spec with its metrics, and the history.

        OUT.history.json follows epoch by epoch.
        """
        from fertool import distributed
        from fertool.metrics import to_metrics
        from fertool.report.console import TrainingProgress
        from fertool.train import Supervised, discard_resume, fit, read_history

        lasts = self.round is None or self.round.lasts
        if not self.options.resume:
            discard_resume(self.state)
        records = list(read_history(self.state)) if lasts else []

        def on_epoch(record: EpochRecord) -> None:
            records.append(record)
            if distributed.is_main_process():
                write_history(self.output, self._history(records))
            progress.epoch(record)

        label = self.round.label if self.round else ""
        with (
            says_how_to_go_on(self.states),
            TrainingProgress(self.options.epochs, label) as progress,
        ):
            result = fit(
                module,
                self.train,
                self.val,
                spec.input,
                replace(self.options.config, seed=self.seed, keep=self.keep),
                objective=objective or Supervised(self.loss),
                device=self.device,
                resume=self.state if lasts else None,
                on_batch=progress.batch,
                on_epoch=on_epoch,
            )
        self._say(result)
        metrics = to_metrics(result.evaluation, self.val.split)
        return replace(spec, metrics=metrics), self._history(result.history)

    def _history(self, records: Iterable[EpochRecord]) -> History:
        """Return the epochs of this training, behind those of the rounds before it."""
        if self.round is None:
            return [asdict(record) for record in records]
        mark = {"round": self.round.number, "phase": self.round.label}
        return [*self.round.before, *({**mark, **asdict(record)} for record in records)]

    def _say(self, result: FitResult) -> None:
        """Note how good the kept epoch is: the official figure, and the one without copies of training images."""
        import torch

        from fertool.data.duplicates import distinct_from
        from fertool.metrics import evaluate_logits
        from fertool.report.console import note
        from fertool.report.units import accuracy_text

        split, figures = self.val.split, asdict(result.evaluation)
        epochs = f"{self.keep} epoch {result.kept_epoch} of {len(result.history)}"
        note(
            f"{epochs}: accuracy {accuracy_text({**figures, 'split': split})}; ECE {figures['ece']:.3f}"
        )
        fresh = torch.from_numpy(distinct_from(self.val.images.numpy(), self.train.images.numpy()))
        copies = len(fresh) - int(fresh.sum())
        if 0 < copies < len(fresh):
            alone = asdict(
                evaluate_logits(result.logits[fresh], self.val.labels[fresh], self.val.classes)
            )
            note(
                f"without {copies} copies of training images: {accuracy_text({**alone, 'split': split})}"
            )

    def finish(
        self,
        spec: Spec,
        module: nn.Module,
        step: ProvenanceStep,
        history: History,
        json: bool,
        tell: Callable[[Spec], dict[str, Any]] = lambda written: {},
    ) -> Spec:
        """Write the model, then remove the state that a killed run would continue from, and say what came out.

        `tell`, given the spec as written, returns what else `--json` says. Of several processes the first one does it.
        """
        from fertool import distributed
        from fertool.cli.output import announce

        if not distributed.is_main_process():
            return spec.with_step(step)
        spec = self.save(spec, module, step, history)
        self.discard()
        if self.options.plot:
            from fertool.report.plots.training_curves import split_rounds

            write_curves(self.options.plot, split_rounds(self.output.stem, history))
        announce(spec, self.output, json, history=history, **tell(spec))
        return spec

    def save(self, spec: Spec, module: nn.Module, step: ProvenanceStep, history: History) -> Spec:
        """Write the model and, if it was trained, its history; returns the spec as written."""
        from fertool import models

        if history:
            write_history(self.output, history)
        return models.save_model(self.output, spec.with_step(step), module)

    def discard(self) -> None:
        """Remove the state that a killed run would continue from, of all rounds; for when the model is safe."""
        from fertool.train import discard_resume

        for path in self.states():
            discard_resume(path)

    def states(self) -> list[Path]:
        """Return the files, of all rounds, that a killed run would continue from."""
        found: list[Path] = []
        for own in ("", ".latency", ".round-*"):
            found += self.output.parent.glob(state_path(Path(escape(self.output.name)), own).name)
        return found


def require_outputs(
    output: Path, options: TrainingOptions, *inputs: Path, trains: bool = False
) -> None:
    """Fail before any work when a file cannot be written or would replace another: model, history, state, picture."""
    from fertool.artifact.atomic import require_writable
    from fertool.cli.output import require_picture

    require_writable(output, *inputs)
    if options.epochs or trains:
        require_writable(history_path(output), *inputs)
        # The longest name that a state may have.
        require_writable(state_path(output, ".round-999"), *inputs)
    require_picture("--plot", options.plot, output, *inputs)


def state_path(output: Path, own: str = "") -> Path:
    """Return where a part of the command that makes `output` keeps its state: OUT.resume, or of a part with a name."""
    from fertool.artifact.resume_file import resume_path

    return resume_path(output.with_name(f"{output.name}{own}"))


def history_path(output: Path) -> Path:
    """Return where the epochs of the training that makes `output` are written down."""
    return output.with_name(f"{output.name}.history.json")


def write_history(output: Path, history: History) -> None:
    """Write OUT.history.json, atomically: `file`, and under `history` a record for each epoch so far."""
    from fertool.cli.output import write_json

    write_json(history_path(output), {"file": output.name, "history": history})


def write_curves(path: Path, histories: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Write training curves as a PNG."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.plots.training_curves import plot_training_curves

    write_atomic(path, plot_training_curves(histories))


def options_of(*groups: Any) -> dict[str, Any]:
    """Return the options for the provenance: what was given, but no file names; digests stand for inputs."""
    merged: dict[str, Any] = {}
    for group in groups:
        merged.update(group if isinstance(group, Mapping) else _given_values(group))
    named = {
        key: value
        for key, value in merged.items()
        if value is not None and not isinstance(value, Path)
    }
    return {key: value for key, value in named.items() if key != "resume"}


def _given_values(group: Any) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for field in fields(group):
        value = getattr(group, field.name)
        values.update(values_of(value) if is_dataclass(value) else {field.name: value})
    return values
