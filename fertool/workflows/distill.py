"""Train a small network on the logits of larger ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.config.distillation import DistillConfig
from fertool.config.option import applicable, configured, values_of, with_values
from fertool.config.pictures import CurvePictures
from fertool.config.run import RunConfig
from fertool.errors import UsageError
from fertool.reporter import SILENT, Reporter
from fertool.results import Epoch
from fertool.workflows.data import Data, validation_of
from fertool.workflows.new_network import input_of, new_network, recorded_network
from fertool.workflows.outputs import as_path
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.recorded_views import FIXED_BY_VIEWS
from fertool.workflows.student_trainer import StudentTrainer
from fertool.workflows.teacher_logits import (
    AnyTeacher,
    Teachers,
    as_list,
    open_teachers,
    require_logits_output,
    require_one_kind,
    teacher_files,
    write_logits,
)
from fertool.workflows.training_run import TrainingRun
from fertool.workflows.training_task import (
    PreparedTraining,
    Trained,
    TrainedModel,
    TrainingTask,
    run_once,
)

if TYPE_CHECKING:
    from torch import nn

    from fertool import distillation as methods
    from fertool.spec import Spec


def distill(
    teachers: AnyTeacher | Sequence[AnyTeacher],
    data: Data,
    config: DistillConfig = DistillConfig(),
    *,
    output: str | Path | None = None,
    pictures: CurvePictures = CurvePictures(),
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> TrainedModel:
    """Return a student trained with one or several teachers, averaged in probability space.

    `teachers` are models, files of models, or files of logits (see `record_logits`). Epochs are
    chosen on the validation split. With an `output` the student is written there and its epochs
    beside it, and a killed run resumes from OUT.resume (OUT.round-N.resume in rounds). With
    ``save_logits`` the teachers are recorded before the training, which then learns from the
    recording. `options` are those of `DistillConfig`, `CurvePictures` and `RunConfig`, by name.

    Raises UsageError for a wrong option, FertoolError for teachers of other classes, and for data
    and files that cannot be used.
    """
    config, pictures, run = configured(config, options, pictures, run)
    task = StudentTask(teachers, data, config, run, reporter)
    return run_once(task, as_path(output), pictures)


class StudentTask(TrainingTask):
    """The trainings of `distill`."""

    config: DistillConfig
    _teachers: Teachers
    _live_teachers: list[methods.Teacher]

    def __init__(
        self,
        teachers: AnyTeacher | Sequence[AnyTeacher],
        data: Data,
        config: DistillConfig,
        run: RunConfig,
        reporter: Reporter,
    ) -> None:
        super().__init__(data, config, run, reporter)
        self._given = as_list(teachers)

    @property
    def input_files(self) -> list[Path]:
        """The files that are read, with those of the teachers."""
        return [*teacher_files(self._given), *super().input_files]

    def require_inputs(self) -> None:
        """Raise FertoolError for a file that does not exist."""
        from fertool.artifact.input_files import require_file

        for path in teacher_files(self._given):
            require_file(path)
        super().require_inputs()

    def open(self, output: Path | None) -> None:
        """Open teachers and data that fit each other, and record the teachers if asked for."""
        logits = self.config.logits
        self._teachers = open_teachers(self._given)
        require_logits_output(logits, output, self.input_files)
        if logits.save_logits:
            require_one_kind(logits, self._teachers)
        # Options of a recording that is neither made nor read would do nothing.
        elif not self._teachers.recordings:
            logits.require_recording()
        if logits.save_logits or self._teachers.recordings:
            self.fixed_options = FIXED_BY_VIEWS
        self.config = self._settled()
        input = input_of(self.config.network)
        # A student of the teachers' classes, chosen on images that they were not trained on.
        self.data = self.data.following(self._teachers.lineage)
        source = self.data.fitted(input)
        self._train = source.split("train")
        self._teachers.require_images(self._train, self.data)
        # Before they are recorded: a student in rounds starts from a teacher's weights.
        precision = self.config.training.precision
        self._live_teachers = self._teachers.live(self.run.device, precision)
        if logits.save_logits:
            self._teachers = write_logits(
                logits.save_logits,
                self._teachers,
                self._train,
                input,
                self.config.recording,
                command="distill",
                read=self.data.read,
                run=self.run,
                reporter=self.reporter,
            )
        self._val = validation_of(source)

    def _settled(self) -> DistillConfig:
        """Return the options with the augmentation that recordings fix."""
        augmentation = self._teachers.settle(
            self.config.training.augmentation, self.config.logits.logit_views, self.reporter
        )
        return with_values(self.config, values_of(augmentation))

    def prepare(
        self, config: DistillConfig, run: RunConfig, output: Path | None
    ) -> PreparedTraining:
        """Return a training of a new student."""
        if config.training.epochs == 0:
            raise UsageError(
                "``epochs=0``: without training there is no student",
                "record_logits records teachers",
            )
        network = config.network
        options = recorded_options(
            recorded_network(network),
            config.distillation,
            applicable(config.distillation),
            self.data.read,
            config.training,
            config.loss,
            {"logit_views": self._teachers.views},
        )
        step = make_step(
            "distill",
            options,
            run.seed,
            data=self._train,
            init=network.init,
            init_from=network.init_from,
            **self._teachers.digests,
        )
        training = self.training_run(config, run, output)

        def fit() -> Trained:
            spec, student = new_network(network, self._train, run.seed, self.reporter)
            trained_spec, history = self._fit(config, training, spec, student)
            return Trained(training, trained_spec, student, history)

        return PreparedTraining(step, fit)

    def _fit(
        self, config: DistillConfig, training: TrainingRun, spec: Spec, student: nn.Module
    ) -> tuple[Spec, list[Epoch]]:
        """Train the student by the method; returns its spec and the history of all trainings."""
        from fertool.distillation import Student, load_method

        options = config.distillation
        method = load_method(options.method, **applicable(options))
        # A method may start from a teacher's weights, unless others are given.
        start_from = None
        if self._live_teachers and not config.network.files:
            start_from = self._live_teachers[0]
        trainer = StudentTrainer(training, options, spec, student, start_from)
        teachers = self._teachers.ready(self.run.device, self.config.training.precision)
        number = method.train(Student(student, spec.input, spec.classes), teachers, trainer)
        return trainer.specs[number - 1], trainer.history
