"""Distillation that also matches feature maps of student and teacher at several depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.artifact.store import pack
from fertool.distillation.knowledge import AnyTeacher, KnowledgeDistillation, Teacher
from fertool.distillation.method import DistillationMethod, Student, StudentTrainer
from fertool.distillation.stages import Stage, capture_feature_maps, find_stages
from fertool.errors import FertoolError, UsageError
from fertool.header_json import canonical_json
from fertool.losses import attention_transfer, guided_feature_loss
from fertool.objective import EpochPlan
from fertool.registry import DISTILLATION_METHODS
from fertool.spec import InputSpec


@dataclass(frozen=True)
class _Match:
    """A feature map of the student, and the one of the teacher with this index to match it with."""

    index: int
    student: Stage
    teacher: Stage


@DISTILLATION_METHODS.register("feature")
@dataclass(frozen=True)
class FeatureMatching(DistillationMethod):
    """Inner feature maps are matched too: alpha T^2 KL + beta L_feature + gamma CE.

    Li, equation 2.
    """

    needs_live_teachers: ClassVar[bool] = True

    beta: float = 1.0
    gamma: float | None = None
    match_depths: int = 4

    def train(
        self, student: Student, teachers: Sequence[AnyTeacher], trainer: StudentTrainer
    ) -> int:
        """Train once, with the feature maps of the teachers that are models."""
        live = [teacher for teacher in teachers if isinstance(teacher, Teacher)]
        objective = FeatureDistillation(
            trainer.knowledge(teachers, self.gamma),
            student.module,
            student.input,
            live,
            beta=self.beta,
            depths=self.match_depths,
            seed=trainer.seed,
        )
        for layer, index, teacher_layer in objective.matched_stages:
            trainer.note(f"{layer} is matched with {teacher_layer} of teacher {index + 1}")
        trainer.train(objective)
        return 1


class FeatureDistillation:
    """`alpha T^2 KL(q || p) + beta L_feature + gamma CE(y, p)` (Li, equation 2; recipe 4).

    L_feature is the mean over teachers and depths of `attention_transfer(S, T) +
    guided_feature_loss(A S, T)`, S and T being the maps of student and teacher and A a 1 x 1
    convolution that is trained with the student. The deepest map of the one is matched with the
    deepest of the other, then the ones before; where sizes differ, the larger map is pooled.
    """

    def __init__(
        self,
        knowledge: KnowledgeDistillation,
        student: nn.Module,
        input: InputSpec,
        teachers: Sequence[Teacher],
        *,
        beta: float,
        depths: int,
        seed: int = 0,
    ) -> None:
        """Add matched features to `knowledge`, the objective on the logits of these `teachers`.

        `student` has this `input`. Each network runs once to find its maps; cached teachers have
        none and take part in `knowledge` alone. The convolutions start from `seed`, or from the
        identity where they keep the number of channels.

        Raises UsageError for a number out of bounds, FertoolError for a network without inner maps.
        """
        if not 0 <= beta < float("inf"):
            raise UsageError(f"``beta={beta}``: must be 0 or more", "1 is the default")
        if depths < 1:
            raise UsageError(
                f"``match_depths={depths}``: must be 1 or more", "1 matches the deepest maps alone"
            )
        if not teachers:
            raise FertoolError(
                "``method=feature``: cached logits have no feature maps to match",
                "name a teacher's model file too",
            )
        self._knowledge = knowledge
        self._student = student
        self._beta = beta
        self._teachers = [teacher.module for teacher in teachers]
        self._matches = _match_stages(student, self._teachers, depths)
        # The global generator is used by nn.Conv2d, and left as it was.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = nn.ModuleList(_adapter(match) for match in self._matches)

    @property
    def matched_stages(self) -> list[tuple[str, int, str]]:
        """The matches: a module of the student, a teacher's index, and a module of that teacher."""
        return [(match.student.name, match.index, match.teacher.name) for match in self._matches]

    @property
    def fingerprint(self) -> str:
        """All that the loss depends on, with a digest of the convolutions."""
        header, _ = pack({}, self.adapters.state_dict())
        return canonical_json(
            {
                "answers": self._knowledge.fingerprint,
                "beta": self._beta,
                "matched": self.matched_stages,
                "adapters": header["digest"],
            }
        )

    def plan_epoch(self, epoch: int, targets: Tensor) -> EpochPlan:
        """Return what the objective on the logits plans."""
        return self._knowledge.plan_epoch(epoch, targets)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch.

        Inputs are normalized [N, C, S, S], targets as from `plan_epoch`.
        """
        student_names: set[str] = set()
        teacher_names: list[set[str]] = [set() for _ in self._teachers]
        for match in self._matches:
            student_names.add(match.student.name)
            teacher_names[match.index].add(match.teacher.name)

        # The forward passes of the loss on the logits make the maps: no network runs twice.
        with ExitStack() as contexts:
            student_maps = contexts.enter_context(
                capture_feature_maps(self._student, student_names)
            )
            teacher_maps: list[Mapping[str, Tensor]] = []
            for teacher, names in zip(self._teachers, teacher_names, strict=True):
                maps = contexts.enter_context(capture_feature_maps(teacher, names))
                teacher_maps.append(maps)
            loss = self._knowledge(module, inputs, targets)
        return loss + self._beta * self._feature_loss(student_maps, teacher_maps)

    def _feature_loss(
        self, student_maps: Mapping[str, Tensor], teacher_maps: Sequence[Mapping[str, Tensor]]
    ) -> Tensor:
        # A list and a mean, so that `beta` means the same for any number of matches.
        losses = []
        for match, adapter in zip(self._matches, self.adapters, strict=True):
            student_map = student_maps[match.student.name]
            teacher_map = teacher_maps[match.index][match.teacher.name]
            student, teacher = _pool_to_same_size(student_map, teacher_map)
            # Each network computes in a precision of its own.
            teacher = teacher.to(student.dtype)
            attention = attention_transfer(student, teacher)
            losses.append(attention + guided_feature_loss(adapter(student), teacher))
        return torch.stack(losses).mean()


def _match_stages(student: nn.Module, teachers: Sequence[nn.Module], depths: int) -> list[_Match]:
    """Match the deepest maps, and those before, up to `depths` or to where one has no more.

    The shallowest match is the first of each teacher.
    """
    matches: list[_Match] = []
    student_stages = _require_stages("the student", student)
    for index, teacher in enumerate(teachers):
        teacher_stages = _require_stages(f"teacher {index + 1}", teacher)
        # From the deepest on: they are closest to the logits, whatever the networks' depths.
        count = min(depths, len(student_stages), len(teacher_stages))
        pairs = zip(student_stages[-count:], teacher_stages[-count:], strict=True)
        for student_stage, teacher_stage in pairs:
            matches.append(_Match(index, student_stage, teacher_stage))
    return matches


def _require_stages(owner: str, module: nn.Module) -> tuple[Stage, ...]:
    """Return the stages of a network; raises FertoolError when it has none."""
    stages = find_stages(module)
    if not stages:
        raise FertoolError(
            f"``method=feature``: {owner} has no inner feature maps of more than one pixel, "
            "so nothing can be matched",
            "use ``method=kd``, which needs the logits alone",
        )
    return stages


def _adapter(match: _Match) -> nn.Module:
    # Without a bias: the loss compares standardized maps, from which it would vanish.
    adapter = nn.Conv2d(match.student.channels, match.teacher.channels, 1, bias=False)
    # The identity is a better start than noise, and needs as many channels on both sides.
    if match.student.channels == match.teacher.channels:
        nn.init.dirac_(adapter.weight)
    return adapter


def _pool_to_same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Pool two maps [N, C, H, W] to the smaller height and the smaller width of them."""
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    return _pool(one, size), _pool(other, size)


def _pool(features: Tensor, size: tuple[int, int]) -> Tensor:
    if features.shape[2:] == size:
        return features
    return F.adaptive_avg_pool2d(features, size)
