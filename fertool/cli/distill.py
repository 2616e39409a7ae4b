"""`fertool distill`: train a small network on what larger ones say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from fertool.cli.data import open_source
from fertool.cli.groups import training_command
from fertool.cli.inputs import require_inputs
from fertool.cli.options import (
    ArchOptions,
    DataOption,
    Device,
    Json,
    Output,
    ReadOptions,
    Recipe,
    Seed,
    TrainingOptions,
)
from fertool.cli.provenance import make_step
from fertool.cli.rounds import fit_rounds, start_from
from fertool.cli.splits import validation_of
from fertool.cli.sweep import SweepOptions, Trained, Trial, plan_sweep
from fertool.cli.teacher_logits import IN_A_VIEW, LogitOptions, open_teachers, record_teachers
from fertool.cli.training import History, TrainingRun, input_of, new_model, options_of
from fertool.cli.variants import Own, own_options, require_own
from fertool.config.training import OptionalTrainConfig
from fertool.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from fertool.distill import AnyTeacher, KnowledgeDistillation
    from fertool.spec import ProvenanceStep, Spec
    from fertool.train import Objective

DISTILLATION = "Distillation"
_OWN: Own = {
    "kd": {},
    "feature": {"beta": 1.0, "gamma": None, "match_depths": 4},
    "iterative": {"rounds": 3},
}
"""The options that one method alone has, and what they are where they are left out."""


@dataclass(frozen=True)
class StudentOptions(ArchOptions):
    """What student to make; by default recipe 1's."""

    arch: Annotated[
        str,
        typer.Option(
            help="A name of the zoo; a wrong one lists them all.", rich_help_panel="Model"
        ),
    ] = "micro_expnet"


@dataclass(frozen=True)
class DistillOptions:
    """How the student listens to its teachers; raises UsageError for an option that the method does not have."""

    temperature: Annotated[
        float,
        typer.Option(help="Softens both distributions.", min=0.1, rich_help_panel=DISTILLATION),
    ] = 4.0
    alpha: Annotated[
        float,
        typer.Option(
            help="Weight of the teacher's part of the loss.",
            min=0,
            max=1,
            rich_help_panel=DISTILLATION,
        ),
    ] = 0.7
    method: Annotated[
        Literal["kd", "feature", "iterative"],
        typer.Option(
            help="kd: alpha T^2 KL(teacher, student) + (1 - alpha) CE; feature: inner feature maps are matched too, "
            "alpha T^2 KL + beta L_feature + gamma CE; iterative: kd in rounds, each student teaching the next, which "
            "goes on from its weights.",
            rich_help_panel=DISTILLATION,
        ),
    ] = "kd"
    beta: Annotated[
        float | None,
        typer.Option(
            help="feature: weight of the matched features, 1 if left out.",
            min=0,
            rich_help_panel=DISTILLATION,
        ),
    ] = None
    gamma: Annotated[
        float | None,
        typer.Option(
            help="feature: weight of the labels, 1 - alpha if left out.",
            min=0,
            rich_help_panel=DISTILLATION,
        ),
    ] = None
    match_depths: Annotated[
        int | None,
        typer.Option(
            help="feature: how many depths are matched, from the last one back, 4 if left out.",
            min=1,
            rich_help_panel=DISTILLATION,
        ),
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option(
            help="iterative: trainings of --epochs each, 3 if left out; the best is kept.",
            min=1,
            rich_help_panel=DISTILLATION,
        ),
    ] = None

    def __post_init__(self) -> None:
        require_own(self, "method", _OWN)

    @property
    def own(self) -> dict[str, Any]:
        """The options that the method alone has, the defaults for those left out."""
        return own_options(self, "method", _OWN)


@dataclass(frozen=True)
class DistillTraining(TrainingOptions):
    """The same loop, which may also be left out: 0 epochs stop once --save-logits is written."""

    config: OptionalTrainConfig = field(default_factory=OptionalTrainConfig)

    def require_sense(self, method: str, logits: LogitOptions, output: Path | None) -> None:
        """Raise UsageError when without training there is nothing to do, or more is asked for than comes out of it.

        With training, when the method needs what recorded teachers do not have.
        """
        if self.epochs:
            if logits.save_logits and method == "feature":
                raise UsageError(
                    f"--save-logits {logits.save_logits}: --method feature needs the teachers themselves",
                    "record them with --epochs 0, and name the models here",
                )
            return
        if logits.save_logits is None:
            raise UsageError(
                "--epochs 0: nothing to do", "add --save-logits FILE to record the teachers"
            )
        for flag, path in (("-o", output), ("--plot", self.plot)):
            if path:
                raise UsageError(
                    f"{flag} {path}: without training there is none",
                    "leave it out, or give --epochs",
                )


@training_command
def distill(
    context: typer.Context,
    teachers: Annotated[
        list[Path],
        typer.Argument(
            metavar="TEACHER...", help="Teachers' .pt files, or files that --save-logits made."
        ),
    ],
    data: DataOption,
    output: Output = None,
    arch: StudentOptions = StudentOptions(),
    distillation: DistillOptions = DistillOptions(),
    read: ReadOptions = ReadOptions(),
    training: DistillTraining = DistillTraining(),
    sweep: SweepOptions = SweepOptions(),
    logits: LogitOptions = LogitOptions(),
    seed: Seed = 0,
    device: Device = "auto",
    recipe: Recipe = None,
    json: Json = False,
) -> None:
    """Train a student with one or several teachers, averaged in probability space.

    Epochs are chosen on the validation split, and so are the best seed and the best row of a grid. A killed run goes
    on from OUT.resume (OUT.round-N.resume in rounds); what a sweep has finished is not trained again.

    With --save-logits the teachers are asked once, before the training; the file that keeps their
    answers stands for them in later runs, which are faster and need no teacher.

    Example: fertool distill teacher.pt -o student.pt --data fer2013.csv --arch micro_expnet

    Example: fertool distill teacher.logits -o student.pt --data fer2013.csv

    Example: fertool distill teacher.pt -o best.pt --data fer2013.csv --grid "temperature=4,6,8;alpha=0.2,0.4,0.6"
    """
    from fertool.cli.output import announce

    training.require_sense(distillation.method, logits, output)
    output = output or Path(f"{arch.name}.pt")
    inputs = [*teachers, *read.inputs(data), *arch.files]
    plan = plan_sweep(context, sweep, seed, output, training, distillation)
    plan.require_outputs(training, *inputs)
    require_inputs(*teachers, *arch.files, data=data, read=read)
    files = open_teachers(teachers)
    logits.require_output(output, inputs, [name for name, _ in files.recordings])
    if files.recordings or logits.save_logits:
        plan.refuse_axes(IN_A_VIEW, "a recording of teachers fixes it")
    training = files.agreed(training, logits.logit_views)
    shape = input_of(arch)
    source = open_source(data, read, size=shape.size, channels=shape.channels)
    images = source.split("train")
    files.require_images(images, data, read)
    live_teachers = files.present(device, training.config.precision)
    if logits.save_logits:
        own = (logits, images, input_of(arch), training, read)
        files = record_teachers(files, *own, command="distill", seed=seed, device=device)
        if not training.epochs:
            announce(files.recordings[0][1].spec, logits.save_logits, json)
            return
    val, all_teachers = validation_of(source), files.teachers(device, training.config.precision)

    def describe(trial: Trial) -> ProvenanceStep:
        chosen = trial.of(distillation)
        options = options_of(
            arch, chosen, chosen.own, read, trial.of(training), {"logit_views": files.views}
        )
        return make_step(
            "distill",
            options,
            trial.seed,
            data=images,
            init=arch.init,
            init_from=arch.init_from,
            **files.digests,
        )

    def train(trial: Trial) -> Trained:
        run = TrainingRun(images, val, trial.of(training), trial.output, trial.seed, device)
        spec, module = new_model(arch, images, trial.seed)
        first = [] if arch.files else live_teachers
        spec, history = _learn(trial.of(distillation), run, spec, module, all_teachers, first)
        return Trained(run, spec, module, history)

    plan.carry_out(describe, train, training, json)


def _learn(
    options: DistillOptions,
    run: TrainingRun,
    spec: Spec,
    student: nn.Module,
    teachers: Sequence[AnyTeacher],
    init_teachers: Sequence[AnyTeacher],
) -> tuple[Spec, History]:
    """Train the student by the method; rounds begin with the layers shared with the first of `init_teachers`."""
    if options.method != "iterative":
        return run.fit(spec, student, _objective(options, run, spec, student, teachers))
    start_from(student, init_teachers, spec.classes)
    return fit_rounds(
        *(run, options.own["rounds"], spec, student, teachers),
        lambda teachers: _answers(options, run, spec, teachers),
    )


def _objective(
    options: DistillOptions,
    run: TrainingRun,
    spec: Spec,
    student: nn.Module,
    teachers: Sequence[AnyTeacher],
) -> Objective:
    """The objective of a training that has one: kd, or kd with matched features."""
    from fertool.distill import FeatureDistillation, Teacher
    from fertool.report.console import note

    answers = _answers(options, run, spec, teachers)
    if options.method == "kd":
        return answers
    objective = FeatureDistillation(
        answers,
        student,
        spec.input,
        [teacher for teacher in teachers if isinstance(teacher, Teacher)],
        beta=options.own["beta"],
        depths=options.own["match_depths"],
        seed=run.seed,
    )
    for mine, index, theirs in objective.matched_stages:
        note(f"{mine} is matched with {theirs} of teacher {index + 1}")
    return objective


def _answers(
    options: DistillOptions, run: TrainingRun, spec: Spec, teachers: Sequence[AnyTeacher]
) -> KnowledgeDistillation:
    from fertool.distill import KnowledgeDistillation

    return KnowledgeDistillation(
        teachers,
        input=spec.input,
        classes=spec.classes,
        temperature=options.temperature,
        alpha=options.alpha,
        gamma=options.gamma,
        loss=run.loss,
    )
