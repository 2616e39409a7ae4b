"""Teachers as models or as files of their logits on the training images, and recording them."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.atomic import require_writable
from fertool.artifact.input_files import require_file
from fertool.config.distillation import LogitsConfig, RecordLogitsConfig
from fertool.config.option import configured
from fertool.config.pictures import CurvePictures, pictures_of
from fertool.config.reading import ReadConfig
from fertool.config.run import RunConfig
from fertool.config.training import AugmentConfig
from fertool.errors import FertoolError, UsageError
from fertool.reporter import SILENT, Reporter
from fertool.results import LogitsSummary
from fertool.workflows.data import Data
from fertool.workflows.model import Model, load
from fertool.workflows.new_network import default_input, input_of
from fertool.workflows.processes import require_one_process
from fertool.workflows.provenance import make_step, recorded_options
from fertool.workflows.recorded_views import RECORD_ANEW, with_views

if TYPE_CHECKING:
    from fertool.artifact.logits_header import LogitsSpec
    from fertool.config.training import PrecisionName
    from fertool.data.dataset import FaceDataset
    from fertool.distillation import CachedTeacher, Teacher
    from fertool.distillation.cached_logits import CachedLogits
    from fertool.spec import InputSpec, ProvenanceStep


@dataclass(frozen=True, eq=False)
class RecordedLogits:
    """The logits of teachers on the training images; stands for them in `distill`."""

    cached: CachedLogits
    path: Path

    @property
    def spec(self) -> LogitsSpec:
        """The header of the file."""
        return self.cached.spec

    @property
    def summary(self) -> LogitsSummary:
        """What `show` says of the file."""
        return LogitsSummary.of(self.path, self.spec)


AnyTeacher = Model | RecordedLogits | str | Path
"""A model, or what was recorded of teachers; or a file of one of the two."""


def record_logits(
    teachers: AnyTeacher | Sequence[AnyTeacher],
    data: Data,
    config: RecordLogitsConfig = RecordLogitsConfig(),
    *,
    output: str | Path,
    run: RunConfig = RunConfig(),
    reporter: Reporter = SILENT,
    **options: Any,
) -> RecordedLogits:
    """Write the logits of teachers to a file that stands for them in `distill`.

    They are those on the training images, each under ``views`` fixed augmentations. Recordings of
    the same images and views are merged into one file. `options` are those of `RecordLogitsConfig`
    and `RunConfig`, by name.

    Raises UsageError for a wrong option, FertoolError for teachers of other classes and for files
    that cannot be used.
    """
    config, run = configured(config, options, run)
    given = as_list(teachers)
    inputs = [*teacher_files(given), *data.files, *config.student.files]
    logits = LogitsConfig(Path(output), config.logit_views)
    require_logits_output(logits, None, inputs)
    for path in config.student.files:
        require_file(path)
    opened = open_teachers(given)
    require_one_kind(logits, opened)
    opened.settle(config.augmentation, config.logit_views, reporter)
    input = input_of(config.student)
    data = data.following(opened.lineage)
    train = data.fitted(input).split("train")
    opened.require_images(train, data)
    recorded = write_logits(
        Path(output),
        opened,
        train,
        input,
        config,
        command="distill",
        read=data.read,
        run=run,
        reporter=reporter,
    )
    return recorded.recordings[0]


@dataclass(frozen=True)
class Teachers:
    """Teachers that are models, and recordings of others."""

    models: tuple[Model, ...]
    recordings: tuple[RecordedLogits, ...] = ()

    @classmethod
    def of(cls, models: Iterable[Model]) -> Teachers:
        """Return models as teachers, by copies: a teacher is frozen and moved to the device."""
        copies = []
        for model in models:
            known = model
            # The provenance names teachers by their digests, which a model in memory may lack.
            if not model.spec.digest:
                known = model.sealed()
            copies.append(Model(known.spec, copy.deepcopy(known.module), known.path))
        return cls(tuple(copies))

    @property
    def lineage(self) -> tuple[ProvenanceStep, ...]:
        """The steps that made the first teacher, or the first recording where there is no model."""
        if self.models:
            return self.models[0].lineage
        return self.recordings[0].spec.provenance if self.recordings else ()

    @property
    def views(self) -> int | None:
        """The views of the recordings, None without any."""
        counts = [recording.spec.views for recording in self.recordings]
        return max(counts, default=None)

    @property
    def digests(self) -> dict[str, str]:
        """The digests of all teachers and of the recordings, by their roles in the provenance."""
        teachers = [model.spec.digest for model in self.models]
        for recording in self.recordings:
            teachers += recording.spec.teachers
        roles = {f"teacher.{index}": digest for index, digest in enumerate(teachers)}
        for index, recording in enumerate(self.recordings):
            roles[f"logits.{index}"] = recording.spec.digest
        return roles

    def ready(self, device: str, precision: PrecisionName) -> list[Teacher | CachedTeacher]:
        """Return all of them, models first, as distillation takes them."""
        teachers: list[Teacher | CachedTeacher] = [*self.live(device, precision)]
        for recording in self.recordings:
            teachers += recording.cached.teachers
        return teachers

    def live(self, device: str, precision: PrecisionName) -> list[Teacher]:
        """Return those that are models, on the device."""
        from fertool.device import resolve_device
        from fertool.distillation import Teacher

        where = resolve_device(device)
        return [
            Teacher(model.module.to(where), model.input, model.classes, precision)
            for model in self.models
        ]

    def settle(
        self, given: AugmentConfig, logit_views: int | None, reporter: Reporter
    ) -> AugmentConfig:
        """Return the augmentation that the recordings fix, the given one where they fix none.

        Raises UsageError for options that contradict them.
        """
        settled = given
        for recording in self.recordings:
            views = recording.spec.views
            if logit_views not in (None, views):
                raise UsageError(
                    f"``logit_views={logit_views}``: {recording.path} was recorded with {views}",
                    RECORD_ANEW,
                )
            if recording.cached.views:
                settled = with_views(
                    recording.cached.views, given, settled, recording.path, reporter
                )
        return settled

    def require_images(self, train: FaceDataset, data: Data) -> None:
        """Raise FertoolError unless every recording is of these training images.

        Those of another shape are compared in the shape that was recorded.
        """
        from fertool.distillation.cached_logits import require_same_images

        for recording in self.recordings:
            recorded = recording.spec.images
            images = train
            is_same_shape = tuple(train.images.shape[1:3]) == (recorded.channels, recorded.size)
            if not is_same_shape and len(train) == recorded.count:
                input = default_input(recorded.size, recorded.channels)
                images = data.fitted(input).split(train.split)
            require_same_images(recording.spec, images, str(recording.path))


def as_list(teachers: AnyTeacher | Sequence[AnyTeacher]) -> list[AnyTeacher]:
    """Return one or several teachers as a list."""
    if isinstance(teachers, Model | RecordedLogits | str | Path):
        return [teachers]
    return list(teachers)


def teacher_files(teachers: Iterable[AnyTeacher]) -> list[Path]:
    """Return the files among teachers, also those that models and recordings were read from."""
    # Those of models, too: an output must not replace what the caller still reads.
    files: list[Path] = []
    for teacher in teachers:
        if isinstance(teacher, str | Path):
            files.append(Path(teacher))
        elif teacher.path is not None:
            files.append(teacher.path)
    return files


def open_teachers(teachers: Iterable[AnyTeacher]) -> Teachers:
    """Open the files among teachers; models and logits are told apart by the files' content."""
    from fertool.artifact.logits_header import is_logits
    from fertool.distillation.cached_logits import load_logits

    models: list[Model] = []
    recordings: list[RecordedLogits] = []
    for teacher in teachers:
        if isinstance(teacher, RecordedLogits):
            recordings.append(teacher)
        elif isinstance(teacher, Model):
            models += Teachers.of([teacher]).models
        elif is_logits(Path(teacher)):
            recordings.append(RecordedLogits(load_logits(Path(teacher)), Path(teacher)))
        else:
            models.append(load(teacher))
    return Teachers(tuple(models), tuple(recordings))


def require_logits_output(config: LogitsConfig, model: Path | None, inputs: Sequence[Path]) -> None:
    """Raise FertoolError when the file of logits cannot be written or would replace another."""
    path = config.save_logits
    if path is None:
        return
    require_one_process("``save_logits``")
    require_writable(path, *inputs)
    # By the resolved paths: both names may lead to one file.
    if model is not None and path.resolve() == model.resolve():
        raise UsageError(
            f"``save_logits={path}``: the model goes there",
            "name another file, for example t.logits",
        )


def require_one_kind(config: LogitsConfig, teachers: Teachers) -> None:
    """Raise UsageError unless all teachers are models, or recordings to merge."""
    if not teachers.recordings:
        return
    path = teachers.recordings[0].path
    if teachers.models:
        raise UsageError(
            f"``save_logits={config.save_logits}``: {path} is a recording already, beside models",
            "record the models alone, with the same augmentation and ``seed``, and merge the files",
        )
    if len(teachers.recordings) == 1:
        raise UsageError(
            f"``save_logits={config.save_logits}``: {path} is a recording already",
            "give the teachers' model files, or several recordings to merge",
        )


def write_logits(
    path: Path,
    teachers: Teachers,
    train: FaceDataset,
    input: InputSpec,
    config: RecordLogitsConfig,
    *,
    command: str,
    read: ReadConfig,
    run: RunConfig,
    reporter: Reporter,
) -> Teachers:
    """Write the models' logits on the training images, as a student with this `input` sees them.

    Recordings are merged instead. Returns the recording in their place. What a killed run has
    recorded already is written again as it is.
    """
    from fertool.device import resolve_device
    from fertool.distillation.cached_logits import (
        compute_cached_logits,
        merge_cached_logits,
        plan_cached_logits,
        save_logits,
    )

    views = config.views if teachers.views is None else teachers.views
    options = recorded_options(read, {"logit_views": views})
    step = make_step(command, options, run.seed, data=train, **teachers.digests)
    if teachers.recordings:
        parts = {str(each.path): each.cached for each in teachers.recordings}
        merged = save_logits(path, merge_cached_logits(parts, step))
        _note_recorded(path, merged, reporter)
        return Teachers((), (RecordedLogits(merged, path),))
    digests = [model.spec.digest for model in teachers.models]
    plan = plan_cached_logits(train, config.views, config.augmentation, run.seed, digests, step)
    cached = None
    # Recording takes a pass of every teacher for each view; a killed distillation need not repeat
    # it.
    if run.resume:
        cached = _recorded_before(path, plan)
    if cached is None:
        with reporter.progress("logits") as on_progress:
            cached = compute_cached_logits(
                plan,
                teachers.live(run.device, config.precision),
                train,
                input,
                device=resolve_device(run.device),
                on_progress=on_progress,
            )
    cached = save_logits(path, cached)
    _note_recorded(path, cached, reporter)
    return Teachers((), (RecordedLogits(cached, path),))


def _note_recorded(path: Path, cached: CachedLogits, reporter: Reporter) -> None:
    from fertool.report.units import size_text

    spec = cached.spec
    views = f"{spec.views} views of " if spec.views else ""
    # A single teacher is what most files have.
    of = f" by {len(spec.teachers)} teachers" if len(spec.teachers) > 1 else ""
    size = size_text(path.stat().st_size)
    reporter.note(f"{path}: {views}{spec.images.count} images{of}, {size}")


def _recorded_before(path: Path, plan: LogitsSpec) -> CachedLogits | None:
    from fertool.distillation.cached_logits import load_logits

    try:
        cached = load_logits(path)
    except FertoolError:
        return None
    # The plan has no digest yet: that is of the logits, too.
    if replace(cached.spec, digest="").to_json() != plan.to_json():
        return None
    return cached


def require_no_model(output: Path | None, pictures: CurvePictures) -> None:
    """Raise UsageError when more is asked for than comes out without training."""
    asked = dict(pictures_of(pictures))
    if output is not None:
        asked["output"] = output
    for name, path in asked.items():
        raise UsageError(
            f"``{name}={path}``: without training there is none", "leave it out, or give ``epochs``"
        )
