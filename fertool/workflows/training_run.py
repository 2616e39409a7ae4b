"""One training of a workflow: progress, metrics, history and state around the training loop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from glob import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.run import RunConfig
from fertool.config.training import LossConfig, TrainConfig
from fertool.reporter import SILENT, Reporter, noting_resume
from fertool.results import Epoch
from fertool.workflows.model import Model
from fertool.workflows.outputs import state_path, write_history

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.losses import ClassificationLoss
    from fertool.spec import ProvenanceStep, Spec
    from fertool.training import EpochRecord, FitResult, Objective


@dataclass(frozen=True)
class Round:
    """A training that is the `number`th on the way to one model.

    `before` are the epochs of those before it; progress calls it `label`. One that is not
    `resumable` leaves no state: a killed run starts it again.
    """

    number: int
    label: str
    before: list[Epoch]
    resumable: bool = True


@dataclass(frozen=True)
class TrainingRun:
    """A training: on what, how, and for which output file; without one it leaves no files."""

    train: FaceDataset
    val: FaceDataset
    config: TrainConfig
    loss_config: LossConfig = LossConfig()
    run: RunConfig = RunConfig()
    output: Path | None = None
    reporter: Reporter = SILENT
    round: Round | None = None

    @property
    def state(self) -> Path | None:
        """The file that a killed run resumes from: OUT.resume, or OUT.round-N.resume."""
        if self.output is None or (self.round and not self.round.resumable):
            return None
        if self.round is None:
            return state_path(self.output)
        return state_path(self.output, f".round-{self.round.number}")

    @property
    def loss(self) -> ClassificationLoss:
        """The loss against the labels; balanced weights are those of the training images."""
        from fertool.losses import ClassificationLoss, balanced_class_weights

        weights = None
        if self.loss_config.class_weights == "balanced":
            weights = balanced_class_weights(self.train.targets(), self.train.classes)
        return ClassificationLoss(
            self.loss_config.label_smoothing, self.loss_config.focal_gamma, weights
        )

    def fit(
        self, spec: Spec, module: nn.Module, objective: Objective | None = None
    ) -> tuple[Spec, list[Epoch]]:
        """Train `module` in place to its best or last epoch, as `keep` asks.

        The profiles of a dynamic network all learn from every image. Returns the spec with its
        metrics, and the history, which is written epoch by epoch beside the output.
        """
        from fertool import distributed
        from fertool.metrics import to_metrics
        from fertool.pruning import for_profiles
        from fertool.training import Supervised, discard_resume, fit, read_history

        state = self.state
        records: list[EpochRecord] = []
        # The history of a resumed training starts with what the killed one has written.
        if state is not None and self.run.resume:
            records = list(read_history(state))
        elif state is not None:
            discard_resume(state)
        label = self.round.label if self.round else ""

        with (
            noting_resume(self.reporter, self.states),
            self.reporter.training(self.config.epochs, label) as progress,
        ):

            def on_epoch(record: EpochRecord) -> None:
                records.append(record)
                if self.output is not None and distributed.is_main_process():
                    write_history(self.output, self._history(records))
                progress.epoch(record)

            result = fit(
                module,
                self.train,
                self.val,
                spec.input,
                replace(self.config, seed=self.run.seed),
                objective=for_profiles(objective or Supervised(self.loss), module),
                device=self.run.device,
                resume=state,
                on_batch=progress.batch,
                on_epoch=on_epoch,
            )
        self._note_accuracy(result)
        metrics = to_metrics(result.evaluation, self.val.split)
        return replace(spec, metrics=metrics), self._history(result.history)

    def finish(
        self, spec: Spec, module: nn.Module, step: ProvenanceStep, history: list[Epoch]
    ) -> Model:
        """Return the model with `step` in its lineage, written to the output if there is one.

        The states that a killed run would resume from are removed once the file is safe. Of several
        processes the first one writes.
        """
        from fertool import distributed

        model = Model(spec.with_step(step), module)
        if not distributed.is_main_process():
            return model
        model = self.save(model, history)
        self.discard_states()
        return model

    def save(self, model: Model, history: list[Epoch]) -> Model:
        """Return the model as its file has it, written to the output, with its history."""
        # Before the model: whoever finds this one finds its history beside it.
        if self.output is not None and history:
            write_history(self.output, history)
        return model.finished(self.output)

    def discard_states(self) -> None:
        """Remove the files that a killed run would resume from, of all rounds."""
        from fertool.training import discard_resume

        for path in self.states():
            discard_resume(path)

    def states(self) -> list[Path]:
        """Return the files, of all rounds, that a killed run would resume from."""
        if self.output is None:
            return []
        found: list[Path] = []
        for part in ("", ".latency", ".round-*"):
            pattern = state_path(Path(escape(self.output.name)), part).name
            # By pattern: how many rounds a killed run had reached nobody knows any more.
            found += self.output.parent.glob(pattern)
        return found

    def _history(self, records: Iterable[EpochRecord]) -> list[Epoch]:
        """Return the epochs of this training, behind those of the rounds before it."""
        history: list[Epoch] = []
        mark: dict[str, Any] = {}
        if self.round is not None:
            history += self.round.before
            mark = {"round": self.round.number, "phase": self.round.label}
        for record in records:
            history.append(Epoch(**mark, **asdict(record)))
        return history

    def _note_accuracy(self, result: FitResult) -> None:
        """Note the accuracy of the kept epoch, also without copies of training images."""
        import torch

        from fertool.data.duplicates import distinct_from
        from fertool.metrics import evaluate_logits
        from fertool.report.units import accuracy_text

        split, figures = self.val.split, result.evaluation
        kept = f"{self.config.keep} epoch {result.kept_epoch} of {len(result.history)}"
        accuracy = accuracy_text(figures, split)
        self.reporter.note(f"{kept}: accuracy {accuracy}; ECE {figures.ece:.3f}")

        fresh = torch.from_numpy(distinct_from(self.val.images.numpy(), self.train.images.numpy()))
        copies = len(fresh) - int(fresh.sum())
        if 0 < copies < len(fresh):
            alone = evaluate_logits(result.logits[fresh], self.val.labels[fresh], self.val.classes)
            accuracy = accuracy_text(alone, split)
            self.reporter.note(f"without {copies} copies of training images: {accuracy}")
