"""Distillation that also matches what lies between image and answer: feature maps at several depths."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.artifact.store import pack
from fertool.data.augment import AugmentParams
from fertool.distill.objective import KnowledgeDistillation, Teacher
from fertool.distill.stages import Stage, find_stages, recorded
from fertool.errors import FertoolError, UsageError
from fertool.header_json import canonical_json
from fertool.losses import attention_transfer, guided_feature_loss
from fertool.spec import InputSpec

DEPTHS = 4
"""At so many depths features are matched by default."""


@dataclass(frozen=True)
class _Match:
    """A map of the student and one of the teacher with this index."""

    index: int
    student: Stage
    teacher: Stage


class FeatureDistillation:
    """`alpha T^2 KL(q || p) + beta L_feature + gamma CE(y, p)` (Li, equation 2; recipe 4).

    L_feature is the mean over teachers and depths of `attention_transfer(S, T) + guided_feature_loss(A S, T)`, S and T
    being the maps of student and teacher and A a 1 x 1 convolution that learns with the student. The deepest map of the
    one is matched with the deepest of the other, then the ones before; where sizes differ, the larger map is pooled.
    """

    def __init__(
        self,
        answers: KnowledgeDistillation,
        student: nn.Module,
        input: InputSpec,
        teachers: Sequence[Teacher],
        *,
        beta: float = 1.0,
        depths: int = DEPTHS,
        seed: int = 0,
    ) -> None:
        """Add matched features to `answers`, the objective with these `teachers`, for a `student` with this `input`.

        Each network runs once to find its maps; recorded teachers have none and take part in `answers` alone. The
        convolutions start from `seed`, or from the identity where they keep the number of channels.

        Raises UsageError for a bad number, FertoolError for a network without inner maps.
        """
        if not 0 <= beta < float("inf"):
            raise UsageError(f"--beta {beta}: must be 0 or more", "1 is the default")
        if depths < 1:
            raise UsageError(
                f"--match-depths {depths}: must be 1 or more", f"{DEPTHS} is the default"
            )
        if not teachers:
            raise FertoolError(
                "--method feature: recorded answers have no feature maps to match",
                "name a teacher's model file too",
            )
        mine = _stages_of("the student", student)
        self._answers, self._student, self._beta = answers, student, beta
        self._teachers = [teacher.module for teacher in teachers]
        self._matches: list[_Match] = []
        for index, teacher in enumerate(teachers):
            theirs = _stages_of(f"teacher {index + 1}", teacher.module)
            self._matches += _matched(index, mine, theirs, depths)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.adapters = nn.ModuleList(_adapter(match) for match in self._matches)

    @property
    def matched(self) -> list[tuple[str, int, str]]:
        """What is matched: a module of the student, the index of a teacher, and a module of that teacher."""
        return [(match.student.name, match.index, match.teacher.name) for match in self._matches]

    @property
    def fingerprint(self) -> str:
        """That of the objective without features, the numbers, what is matched, and a digest of the convolutions."""
        return canonical_json(
            {
                "answers": self._answers.fingerprint,
                "beta": self._beta,
                "matched": self.matched,
                "adapters": pack({}, self.adapters.state_dict())[0]["digest"],
            }
        )

    def plan_epoch(self, epoch: int, targets: Tensor) -> tuple[Tensor, AugmentParams | None]:
        """Return what the objective without features plans."""
        return self._answers.plan_epoch(epoch, targets)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch: normalised inputs [N, C, S, S], targets as from `plan_epoch`."""
        with ExitStack() as contexts:
            mine = contexts.enter_context(
                recorded(self._student, {match.student.name for match in self._matches})
            )
            theirs = [
                contexts.enter_context(
                    recorded(teacher, {m.teacher.name for m in self._matches if m.index == index})
                )
                for index, teacher in enumerate(self._teachers)
            ]
            loss = self._answers(module, inputs, targets)
        return loss + self._beta * self._feature_loss(mine, theirs)

    def _feature_loss(
        self, mine: Mapping[str, Tensor], theirs: Sequence[Mapping[str, Tensor]]
    ) -> Tensor:
        losses = []
        for match, adapter in zip(self._matches, self.adapters, strict=True):
            # Each network computes in a format of its own.
            student, teacher = _same_size(
                mine[match.student.name], theirs[match.index][match.teacher.name]
            )
            teacher = teacher.to(student.dtype)
            losses.append(
                attention_transfer(student, teacher)
                + guided_feature_loss(adapter(student), teacher)
            )
        return torch.stack(losses).mean()


def _stages_of(owner: str, module: nn.Module) -> tuple[Stage, ...]:
    stages = find_stages(module)
    if not stages:
        raise FertoolError(
            f"--method feature: {owner} has no inner feature maps of more than one pixel, so nothing can be matched",
            "use --method kd, which needs the answers alone",
        )
    return stages


def _matched(
    index: int, mine: Sequence[Stage], theirs: Sequence[Stage], depths: int
) -> list[_Match]:
    """Pair the deepest with the deepest, and so on up to `depths` or to where one has no more; the shallowest first."""
    count = min(depths, len(mine), len(theirs))
    return [_Match(index, a, b) for a, b in zip(mine[-count:], theirs[-count:], strict=True)]


def _adapter(match: _Match) -> nn.Module:
    adapter = nn.Conv2d(match.student.channels, match.teacher.channels, 1, bias=False)
    if match.student.channels == match.teacher.channels:
        nn.init.dirac_(adapter.weight)
    return adapter


def _same_size(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Pool the larger of two maps [N, C, H, W] to the size of the smaller."""
    size = (min(one.shape[2], other.shape[2]), min(one.shape[3], other.shape[3]))
    first, second = (
        x if x.shape[2:] == size else F.adaptive_avg_pool2d(x, size) for x in (one, other)
    )
    return first, second
