"""Train a network on the labels of a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fertool.config.option import configured
from fertool.config.pictures import CurvePictures
from fertool.config.run import RunConfig
from fertool.config.train_teacher import TrainTeacherConfig
from fertool.reporter import SILENT, Reporter
from fertool.workflows.data import Data, validation_of
from fertool.workflows.model import Model
from fertool.workflows.new_network import input_of, new_network, recorded_network
from fertool.workflows.outputs import as_path
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.routing import remeasured
from fertool.workflows.teacher_logits import Teachers, require_logits_output, write_logits
from fertool.workflows.training_task import (
    PreparedTraining,
    Trained,
    TrainedModel,
    TrainingTask,
    run_once,
)


def train(
    data: Data,
    config: TrainTeacherConfig = TrainTeacherConfig(),
    *,
    output: str | Path | None = None,
    pictures: CurvePictures = CurvePictures(),
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> TrainedModel:
    """Return a network trained on a data set, as it was in its best epoch.

    Epochs are chosen on the validation split, never on test images. With an `output` the model is
    written there and its epochs beside it, and a killed run resumes from OUT.resume. With
    ``save_logits`` the logits of the trained model on the training images are written too.
    `options` are those of `TrainTeacherConfig`, `CurvePictures` and `RunConfig`, by name.

    Raises UsageError for a wrong option, FertoolError for data and files that cannot be used.
    """
    config, pictures, run = configured(config, options, pictures, run)
    task = TeacherTask(data, config, run, reporter)
    return run_once(task, as_path(output), pictures)


class TeacherTask(TrainingTask):
    """The trainings of `train`."""

    config: TrainTeacherConfig

    def require_outputs(self, output: Path | None) -> None:
        """Check the file of the logits, too."""
        super().require_outputs(output)
        require_logits_output(self.config.logits, output, self.input_files)

    def open(self, output: Path | None) -> None:
        """Open the data in the shape of the network's input."""
        # Here and not in `prepare`, since all trials of a sweep share the images.
        source = self.data.fitted(input_of(self.config.network))
        self._train = source.split("train")
        self._val = validation_of(source)

    def prepare(
        self, config: TrainTeacherConfig, run: RunConfig, output: Path | None
    ) -> PreparedTraining:
        """Return a training of a new network."""
        network = config.network
        step = make_step(
            "train-teacher",
            recorded_options(
                recorded_network(network), self.data.read, config.training, config.loss
            ),
            run.seed,
            data=self._train,
            init=network.init,
            init_from=network.init_from,
        )
        training = self.training_run(config, run, output)

        def fit() -> Trained:
            spec, module = new_network(network, self._train, run.seed, self.reporter)
            trained_spec, history = training.fit(spec, module)
            measured = remeasured(trained_spec, module, self._val, self.reporter)
            return Trained(training, measured, module, history)

        return PreparedTraining(step, fit)

    def complete(self, best: Model, config: TrainTeacherConfig, run: RunConfig) -> None:
        """Record the trained model, if asked for."""
        if config.logits.save_logits is None:
            return
        write_logits(
            config.logits.save_logits,
            Teachers.of([best]),
            self._train,
            input_of(config.network),
            config.recording,
            command="train-teacher",
            read=self.data.read,
            run=run,
            reporter=self.reporter,
        )
