"""Teacher-logit files on the command line: making them, and letting them stand where a teacher may."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from fertool.cli.options import ReadOptions, TrainingOptions
from fertool.cli.provenance import make_step
from fertool.cli.training import options_of
from fertool.config.option import values_of, with_values
from fertool.errors import FertoolError, UsageError
from fertool.workflows.processes import require_one_process

if TYPE_CHECKING:
    from torch import nn

    from fertool.artifact.logits_header import LogitsSpec
    from fertool.config.training import PrecisionName
    from fertool.data.dataset import FaceDataset
    from fertool.distill import CachedTeacher, Teacher
    from fertool.distill.cached_logits import CachedLogits
    from fertool.distill.cached_teachers import Views
    from fertool.spec import InputSpec, Spec

LOGITS = "Teacher logits"
VIEWS = 8
"""Views of a recording by default."""
IN_A_VIEW = (
    "flip",
    "rotation",
    "translate",
    "scale",
    "aspect",
    "brightness",
    "contrast",
    "erasing",
)
"""The options of augmentation that a recording fixes."""

Options = TypeVar("Options", bound=TrainingOptions)


@dataclass(frozen=True)
class LogitOptions:
    """Whether and how to record teachers."""

    save_logits: Annotated[
        Path | None,
        typer.Option(
            help="Write the teacher's logits on the training images to this file, which then stands for the teacher "
            "in distill.",
            rich_help_panel=LOGITS,
        ),
    ] = None
    logit_views: Annotated[
        int | None,
        typer.Option(
            help=f"Fixed changes under which every image is recorded, 0: as it is; {VIEWS} if left out.",
            min=0,
            rich_help_panel=LOGITS,
        ),
    ] = None

    @property
    def views(self) -> int:
        """How many to record."""
        return VIEWS if self.logit_views is None else self.logit_views

    def require_output(
        self, model: Path, inputs: Sequence[Path], recordings: Sequence[str] = ()
    ) -> None:
        """Fail before any work when the file cannot be written or would replace another, or when there is none.

        `recordings` are the files among the teachers that are logits already.
        """
        from fertool.artifact.atomic import require_writable

        if self.save_logits is None:
            if self.logit_views is not None and not recordings:
                raise UsageError(
                    f"--logit-views {self.logit_views}: nothing is recorded",
                    "add --save-logits FILE, or leave it out",
                )
            return
        require_one_process("--save-logits")
        require_writable(self.save_logits, *inputs)
        if self.save_logits.resolve() == model.resolve():
            raise UsageError(
                f"--save-logits {self.save_logits}: the model goes there",
                "name another file, for example t.logits",
            )
        if recordings:
            raise UsageError(
                f"--save-logits {self.save_logits}: {recordings[0]} is a recording already",
                "give the teachers' model files",
            )


@dataclass(frozen=True)
class TeacherFiles:
    """What stands where teachers may: models and recordings, these with the names of their files."""

    models: tuple[tuple[Spec, nn.Module], ...]
    recordings: tuple[tuple[str, CachedLogits], ...]

    @property
    def views(self) -> int | None:
        """The views of the recordings, None without any."""
        return max((recording.spec.views for _, recording in self.recordings), default=None)

    @property
    def digests(self) -> dict[str, str]:
        """Those of all teachers, present or recorded, and of the recordings, by their roles in the provenance."""
        teachers = [spec.digest for spec, _ in self.models]
        teachers += [
            digest for _, recording in self.recordings for digest in recording.spec.teachers
        ]
        roles = {f"teacher.{i}": digest for i, digest in enumerate(teachers)}
        return {
            **roles,
            **{f"logits.{i}": its.spec.digest for i, (_, its) in enumerate(self.recordings)},
        }

    def teachers(self, device: str, precision: PrecisionName) -> list[Teacher | CachedTeacher]:
        """Return all of them, models first, ready to teach."""
        return [
            *self.present(device, precision),
            *(teacher for _, its in self.recordings for teacher in its.teachers),
        ]

    def present(self, device: str, precision: PrecisionName) -> list[Teacher]:
        """Return those that are there as models."""
        from fertool.device import resolve_device
        from fertool.distill import Teacher

        where = resolve_device(device)
        return [
            Teacher(module.to(where), spec.input, spec.classes, precision)
            for spec, module in self.models
        ]

    def agreed(self, given: Options, logit_views: int | None) -> Options:
        """Return the options with the augmentation that the recordings fix; raises UsageError for contradictions."""
        from fertool.report.console import note

        options = given
        for name, recording in self.recordings:
            if logit_views not in (None, recording.spec.views):
                raise UsageError(
                    f"--logit-views {logit_views}: {name} was recorded with {recording.spec.views}",
                    _RECORD_ANEW,
                )
            if recording.views:
                fixed = _fixed_options(recording.views, given, name)
                own = values_of(given)
                changed = [_flag(key, value) for key, value in fixed.items() if value != own[key]]
                if changed:
                    note(
                        f"{name}: images are changed as they were recorded, with {' '.join(changed)}"
                    )
                options = with_values(options, fixed)
        return options

    def require_images(self, train: FaceDataset, data: str, read: ReadOptions) -> None:
        """Raise FertoolError unless every recording is of these training images, in whichever shape it saw them."""
        from fertool.cli.data import open_source
        from fertool.distill.cached_logits import require_same_images

        for name, recording in self.recordings:
            shape = recording.spec.images
            same_shape = tuple(train.images.shape[1:3]) == (shape.channels, shape.size)
            images = train
            if not same_shape and len(train) == shape.count:
                images = open_source(data, read, size=shape.size, channels=shape.channels).split(
                    train.split
                )
            require_same_images(recording.spec, images, name)


def open_teachers(paths: Sequence[Path]) -> TeacherFiles:
    """Open model files and logits files, told apart by their content."""
    from fertool import models
    from fertool.artifact.logits_header import is_logits
    from fertool.distill.cached_logits import load_logits

    recorded = {path: is_logits(path) for path in paths}
    return TeacherFiles(
        tuple(models.load_model(path) for path in paths if not recorded[path]),
        tuple((str(path), load_logits(path)) for path in paths if recorded[path]),
    )


def record_teachers(
    files: TeacherFiles,
    logits: LogitOptions,
    train: FaceDataset,
    input: InputSpec,
    options: TrainingOptions,
    read: ReadOptions,
    *,
    command: str,
    seed: int,
    device: str,
) -> TeacherFiles:
    """Write what the models say about the training images, as a student with this input sees them, to --save-logits.

    Returns the recording in their place. A file of a killed run that has it already is written again as it is.
    """
    from fertool.device import resolve_device
    from fertool.distill.cached_logits import compute_cached_logits, plan_cached_logits, save_logits
    from fertool.report.console import note, progress
    from fertool.report.units import size_text

    path = logits.save_logits
    if path is None:
        return files
    step = make_step(
        command, options_of(read, {"logit_views": logits.views}), seed, data=train, **files.digests
    )
    digests = [spec.digest for spec, _ in files.models]
    plan = plan_cached_logits(train, logits.views, options.config.augmentation, seed, digests, step)
    recording = _found(path, plan) if options.resume else None
    if recording is None:
        with progress("logits") as on_progress:
            recording = compute_cached_logits(
                *(plan, files.present(device, options.config.precision), train, input),
                device=resolve_device(device),
                on_progress=on_progress,
            )
    recording = save_logits(path, recording)
    views = f"{logits.views} views" if logits.views else "one look"
    note(f"{path}: {views} of {len(train)} images, {size_text(path.stat().st_size)}")
    return TeacherFiles((), ((str(path), recording),))


def _found(path: Path, plan: LogitsSpec) -> CachedLogits | None:
    from fertool.distill.cached_logits import load_logits

    try:
        recording = load_logits(path)
    except FertoolError:
        return None
    return recording if replace(recording.spec, digest="").to_json() == plan.to_json() else None


_RECORD_ANEW = "leave it out, or record the teachers anew with --save-logits"


def _fixed_options(views: Views, options: TrainingOptions, name: str) -> dict[str, Any]:
    """Return the options that a recording fixes; one that has been given another value is a contradiction."""
    fixed = {key: getattr(views.config, key) for key in IN_A_VIEW}
    given_values, defaults = values_of(options), values_of(type(options)())
    for key, value in fixed.items():
        given = given_values[key]
        if given not in (value, defaults[key]):
            raise UsageError(
                f"{_flag(key, given)}: {name} was recorded with {_flag(key, value)}", _RECORD_ANEW
            )
    return fixed


def _flag(key: str, value: float) -> str:
    return f"--{key} {value:g}"
