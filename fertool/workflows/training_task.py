"""A workflow that ends with a trained model, in steps: taken once, or by a sweep for each trial."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fertool.artifact.input_files import require_file
from fertool.config.pictures import CurvePictures
from fertool.config.run import RunConfig
from fertool.reporter import Reporter
from fertool.results import Epoch, TrainingResult
from fertool.workflows.data import Data
from fertool.workflows.model import Model
from fertool.workflows.outputs import require_outputs
from fertool.workflows.pictures import draw_training, require_pictures
from fertool.workflows.training_run import TrainingRun

if TYPE_CHECKING:
    from torch import nn

    from fertool.data.dataset import FaceDataset
    from fertool.spec import ProvenanceStep, Spec


@dataclass(frozen=True, eq=False)
class TrainedModel(Model):
    """A trained model with a record of each epoch."""

    history: list[Epoch] = field(default_factory=list)

    @property
    def summary(self) -> TrainingResult:
        """What the command prints: the keys of `show`, and the epochs."""
        return TrainingResult.of(self.path, self.size_bytes, self.spec, history=tuple(self.history))


class Trained(NamedTuple):
    """What a training leaves: the run with its output, and the network of the best epoch."""

    run: TrainingRun
    spec: Spec
    module: nn.Module
    history: list[Epoch]


@dataclass(frozen=True)
class PreparedTraining:
    """A training before it starts, and the step that its model will record."""

    step: ProvenanceStep
    fit: Callable[[], Trained]


class TrainingTask(ABC):
    """What `train` and `distill` do around their trainings.

    `open` comes first; it may settle options in `config`.
    """

    _train: FaceDataset
    _val: FaceDataset

    def __init__(self, data: Data, config: Any, run: RunConfig, reporter: Reporter) -> None:
        self.data = data
        self.config = config
        self.run = run
        self.reporter = reporter
        self.fixed_options: Collection[str] = ()
        """Options that a grid cannot vary, since a recording of teachers fixes them."""

    @property
    def input_files(self) -> list[Path]:
        """The files that are read: none of them may become an output."""
        return [*self.data.files, *self.config.network.files]

    def require_outputs(self, output: Path | None) -> None:
        """Raise FertoolError when a file of the training cannot be written or replaces an input."""
        if output is not None:
            require_outputs(output, self.input_files, trains=True)

    def require_inputs(self) -> None:
        """Raise FertoolError for a file that does not exist."""
        for path in self.config.network.files:
            require_file(path)

    @abstractmethod
    def open(self, output: Path | None) -> None:
        """Open data and teachers; `output` is the file of the model, if there will be one."""

    def training_run(self, config: Any, run: RunConfig, output: Path | None) -> TrainingRun:
        """Return a training on the images that `open` has opened, with these options."""
        return TrainingRun(
            self._train, self._val, config.training, config.loss, run, output, self.reporter
        )

    @abstractmethod
    def prepare(self, config: Any, run: RunConfig, output: Path | None) -> PreparedTraining:
        """Return one training with options that may differ from the task's own, not yet started."""

    def complete(self, best: Model, config: Any, run: RunConfig) -> None:  # noqa: B027
        """Do what follows the training of the `best` model, which had these options."""


def run_once(task: TrainingTask, output: Path | None, pictures: CurvePictures) -> TrainedModel:
    """Return the model of one training with the task's options, and draw its curves."""
    task.require_outputs(output)
    require_pictures(pictures, output, task.input_files)
    task.require_inputs()
    task.open(output)
    prepared = task.prepare(task.config, task.run, output)
    run, spec, module, history = prepared.fit()
    model = run.finish(spec, module, prepared.step, history)
    task.complete(model, task.config, task.run)
    draw_training(pictures, model, history)
    return TrainedModel(model.spec, model.module, model.path, history)
