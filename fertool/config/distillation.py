"""Options of distillation: what the student learns from its teachers, and how they are recorded."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from fertool.config.network import StudentConfig
from fertool.config.option import changed, check, default_text, option, require_applicable
from fertool.config.training import (
    AugmentConfig,
    LossConfig,
    OptionalTrainConfig,
    PrecisionName,
    TrainConfig,
)
from fertool.errors import UsageError
from fertool.registry import DISTILLATION_METHODS

DISTILLATION, LOGITS = "Distillation", "Teacher logits"
# Each view is recorded once and used in every eighth epoch: "consistent teaching" of Beyer et al.
# 2022 with a table of bounded size.
_VIEWS = 8
_default = partial(default_text, DISTILLATION_METHODS)


@dataclass(frozen=True)
class DistillationConfig:
    """How the student learns from its teachers.

    Raises UsageError for a value out of bounds and for an option that the method does not have.
    """

    # Temperature and alpha of recipe 1.
    temperature: float = option(4.0, "Softens both distributions.", panel=DISTILLATION, minimum=0.1)
    alpha: float = option(
        0.7, "Weight of the teacher's part of the loss.", panel=DISTILLATION, minimum=0, maximum=1
    )
    method: str = option(
        "kd", "How the student learns.", panel=DISTILLATION, registry=DISTILLATION_METHODS
    )
    beta: float | None = option(
        None,
        f"feature: weight of the matched features. Default: {_default('feature', 'beta')}.",
        panel=DISTILLATION,
        minimum=0,
        applies_to="method",
        defaults=DISTILLATION_METHODS.defaults("beta"),
    )
    # An option of its own: in recipe 4 the three weights need not sum to 1.
    gamma: float | None = option(
        None,
        "feature: weight of the labels. Default: 1 - alpha.",
        panel=DISTILLATION,
        minimum=0,
        applies_to="method",
        defaults=DISTILLATION_METHODS.defaults("gamma"),
    )
    match_depths: int | None = option(
        None,
        "feature: how many depths are matched, from the last one back. Default: "
        f"{_default('feature', 'match_depths')}.",
        panel=DISTILLATION,
        minimum=1,
        applies_to="method",
        defaults=DISTILLATION_METHODS.defaults("match_depths"),
    )
    rounds: int | None = option(
        None,
        "iterative: trainings of ``epochs`` each, of which the best is kept. Default: "
        f"{_default('iterative', 'rounds')}.",
        panel=DISTILLATION,
        minimum=1,
        applies_to="method",
        defaults=DISTILLATION_METHODS.defaults("rounds"),
    )

    def __post_init__(self) -> None:
        check(self)
        require_applicable(self)


@dataclass(frozen=True)
class LogitsConfig:
    """Whether and how teachers are recorded; raises UsageError for a value out of bounds."""

    save_logits: Path | None = option(
        None,
        "Write the teacher's logits on the training images to this file, which then stands for the "
        "teacher in distill.",
        panel=LOGITS,
    )
    logit_views: int | None = option(
        None,
        "Fixed augmentations under which every image is recorded, 0 for the image as it is. "
        f"Default: {_VIEWS}.",
        panel=LOGITS,
        minimum=0,
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def views(self) -> int:
        """The number of views to record."""
        return _VIEWS if self.logit_views is None else self.logit_views

    def require_recording(self) -> None:
        """Raise UsageError where a number of views is given and nothing is recorded."""
        if self.logit_views is not None and self.save_logits is None:
            raise UsageError(
                f"``logit_views={self.logit_views}``: nothing is recorded",
                "add ``save_logits=FILE``, or leave it out",
            )


@dataclass(frozen=True)
class RecordLogitsConfig:
    """Which logits of teachers are recorded; raises UsageError for a value out of bounds.

    Of `student` only the input counts, which the images are normalized and resized to.
    """

    logit_views: int | None = changed(LogitsConfig, "logit_views", None, aliases=("views",))
    precision: PrecisionName = changed(TrainConfig, "precision", "auto")
    augmentation: AugmentConfig = field(default_factory=AugmentConfig)
    student: StudentConfig = field(default_factory=StudentConfig)

    def __post_init__(self) -> None:
        check(self)

    @property
    def views(self) -> int:
        """The number of views to record."""
        return LogitsConfig(logit_views=self.logit_views).views


@dataclass(frozen=True)
class DistillConfig:
    """The options of `distill`; without training (``epochs=0``) it only records its teachers.

    Raises UsageError for values and combinations that make no sense.
    """

    network: StudentConfig = field(default_factory=StudentConfig)
    distillation: DistillationConfig = field(default_factory=DistillationConfig)
    training: OptionalTrainConfig = field(default_factory=OptionalTrainConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    logits: LogitsConfig = field(default_factory=LogitsConfig)

    def __post_init__(self) -> None:
        path = self.logits.save_logits
        # Without a training the logits are the only result.
        if self.training.epochs == 0 and path is None:
            raise UsageError(
                "``epochs=0``: nothing to do", "add ``save_logits=FILE`` to record the teachers"
            )
        method = self.distillation.method
        needs_teachers = DISTILLATION_METHODS.attribute(method, "needs_live_teachers")
        # Such a run learns from what it has recorded, in which there is no network.
        if self.training.epochs and path and needs_teachers:
            raise UsageError(
                f"``save_logits={path}``: ``method={method}`` needs the teachers themselves",
                "record them with ``epochs=0``, and name the models here",
            )

    @property
    def recording(self) -> RecordLogitsConfig:
        """The options of recording the teachers."""
        return RecordLogitsConfig(
            logit_views=self.logits.logit_views,
            precision=self.training.precision,
            augmentation=self.training.augmentation,
            student=self.network,
        )
