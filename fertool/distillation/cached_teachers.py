"""Teachers that are represented by their cached logits on the training images."""

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
    """The fixed augmentations, `count` of each training image, that the teachers have seen."""

    count: int
    config: AugmentConfig
    seed: int

    def augment_params(self, n: int, view: int) -> AugmentParams:
        """Return the augmentation of n images in one view, counted from 0."""
        return view_augment_params(n, self.config, self.seed, view)


@dataclass(frozen=True)
class CachedTeacher:
    """One teacher's logits [V, N, K] on N training images in V views.

    Without `views` there is one view, of the unchanged images. `digest` names the logits file and
    the teacher in it.
    """

    logits: Tensor
    classes: tuple[str, ...]
    views: Views | None
    digest: str

    def with_class_order(self, order: Tensor) -> CachedTeacher:
        """Return the same teacher with its classes in another order, their indices int64 [K]."""
        classes = tuple(self.classes[index] for index in order.tolist())
        return replace(self, logits=self.logits[..., order], classes=classes)


class CachedTeacherLogits:
    """The logits of several cached teachers, in one order of classes, by epoch.

    With views an epoch trains on each image as the teachers saw it, one view after the other:
    teachers and student get the same view (Beyer et al. 2022, "consistent teaching"). Without,
    the teachers have seen the plain images, and the student's are augmented as usual ("fixed
    teacher").
    """

    def __init__(self, teachers: Sequence[CachedTeacher]) -> None:
        """Raise FertoolError where the teachers differ in their number of images or their views."""
        views: set[Views] = set()
        images: set[int] = set()
        for teacher in teachers:
            images.add(teacher.logits.shape[1])
            # Those without views go with any: they have seen the plain images.
            if teacher.views:
                views.add(teacher.views)
        if len(views) > 1:
            raise FertoolError(
                "the teachers' logits were recorded under different augmentations",
                "record them in one run, or with the same augmentation and ``seed``: "
                "fertool distill A.pt B.pt ``save_logits=FILE``",
            )
        if len(images) > 1:
            fewest, more, *_ = sorted(images)
            raise _other_images(fewest, more)
        self._teachers = teachers
        self._views = next(iter(views), None)

    @property
    def digests(self) -> list[str]:
        """The digests of the teachers' logits."""
        return [teacher.digest for teacher in self._teachers]

    def total_probs(self, epoch: int, temperature: float, like: Tensor) -> Tensor:
        """Return the sum of the softmaxes at `temperature` in an epoch, counted from 1.

        The result is [N, K] with type and device of `like`. Raises FertoolError when `like` has not
        as many rows as there are images in the cache.
        """
        # A sum and not a mean, which live teachers are added to before it is divided.
        total = torch.zeros_like(like)
        for teacher in self._teachers:
            # By its own number of views: a teacher without views has one, beside others with many.
            view = (epoch - 1) % len(teacher.logits)
            logits = teacher.logits[view].to(like)
            if len(logits) != len(like):
                raise _other_images(len(logits), len(like))
            total = total + (logits / temperature).softmax(1)
        return total

    def augment_params(self, epoch: int, device: torch.device) -> AugmentParams | None:
        """Return the augmentation of all images in an epoch (from 1), None without views."""
        if self._views is None:
            return None
        images = self._teachers[0].logits.shape[1]
        view = (epoch - 1) % self._views.count
        return self._views.augment_params(images, view).to(device)


def _other_images(cached: int, given: int) -> FertoolError:
    return FertoolError(
        f"logits of {cached} training images, where there are {given}",
        "use the data that the logits were recorded on",
    )
