"""Teachers that are not there: what they said about each training image, mixed as living ones are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from fertool.config.training import AugmentConfig
from fertool.data.augment import AugmentParams, view_augment_params
from fertool.errors import FertoolError


@dataclass(frozen=True)
class Views:
    """The fixed changes under which every training image was shown, `count` times."""

    count: int
    config: AugmentConfig
    seed: int

    def changes(self, n: int, view: int) -> AugmentParams:
        """Return those of n images in one view, counted from 0."""
        return view_augment_params(n, self.config, self.seed, view)


@dataclass(frozen=True)
class RecordedTeacher:
    """One teacher's logits [V, N, K] on N training images in V views; without `views` one, of unchanged images.

    `digest` is that of the record.
    """

    logits: Tensor
    classes: tuple[str, ...]
    views: Views | None
    digest: str

    def in_order(self, order: Tensor) -> RecordedTeacher:
        """Return the same teacher with its classes in another order, given by their indices int64 [K]."""
        return replace(
            self,
            logits=self.logits[..., order],
            classes=tuple(self.classes[i] for i in order.tolist()),
        )


class RecordedAnswers:
    """What several recorded teachers, in one order of classes, say in each epoch.

    With views an epoch shows each image as it was recorded, the views taking turns: the teachers and the student look
    at the same picture. Without, the teachers have seen the plain images, and the student's are changed as ever.
    """

    def __init__(self, teachers: Sequence[RecordedTeacher]) -> None:
        """Raise FertoolError unless all are of as many images, and all that have views of the same."""
        views = {teacher.views for teacher in teachers if teacher.views}
        if len(views) > 1:
            raise FertoolError(
                "the teachers' logits were recorded under different changes of the images",
                "record them in one run: fertool distill A.pt B.pt --save-logits FILE",
            )
        counts = {teacher.logits.shape[1] for teacher in teachers}
        if len(counts) > 1:
            raise _other_images(*sorted(counts)[:2])
        self._teachers = teachers
        self._views = next(iter(views), None)

    @property
    def digests(self) -> list[str]:
        """Those of the records."""
        return [teacher.digest for teacher in self._teachers]

    def total_probs(self, epoch: int, temperature: float, like: Tensor) -> Tensor:
        """Return the sum of the softened distributions in an epoch (from 1): [N, K] in the type and place of `like`.

        Raises FertoolError when `like` has not as many rows as there are images in the record.
        """
        total = torch.zeros_like(like)
        for teacher in self._teachers:
            logits = teacher.logits[(epoch - 1) % len(teacher.logits)].to(like)
            if len(logits) != len(like):
                raise _other_images(len(logits), len(like))
            total = total + (logits / temperature).softmax(1)
        return total

    def changes(self, epoch: int, device: torch.device) -> AugmentParams | None:
        """Return the changes of all images in an epoch (from 1), None where the record leaves them open."""
        if self._views is None:
            return None
        n = self._teachers[0].logits.shape[1]
        return self._views.changes(n, (epoch - 1) % self._views.count).to(device)


def _other_images(recorded: int, given: int) -> FertoolError:
    return FertoolError(
        f"logits of {recorded} training images, where there are {given}",
        "use the data that the logits were recorded on",
    )
