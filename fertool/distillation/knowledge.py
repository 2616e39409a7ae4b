"""Knowledge distillation on the teachers' softened distributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.artifact.store import pack
from fertool.config.distillation import DistillationConfig
from fertool.config.training import PrecisionName
from fertool.data.pixels import convert_channels, to_input
from fertool.device import place
from fertool.distillation.cached_teachers import CachedTeacher, CachedTeacherLogits
from fertool.errors import FertoolError, UsageError
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss, distillation_kl_probs
from fertool.objective import EpochPlan
from fertool.precision import autocast, resolve_precision
from fertool.spec import InputSpec


@dataclass(frozen=True)
class Teacher:
    """A trained network with its input, the order of its classes, and the precision it runs in."""

    module: nn.Module
    input: InputSpec
    classes: tuple[str, ...]
    precision: PrecisionName = "fp32"

    def logits(self, inputs: Tensor, given: InputSpec) -> Tensor:
        """Return float32 [N, K], in the teacher's order of classes.

        `inputs` are normalized and of the form that `given` describes.
        """
        dtype = resolve_precision(self.precision, inputs.device, self.module)
        with autocast(dtype, inputs.device):
            logits: Tensor = self.module(adapt_inputs(inputs, given, self.input))
        return logits.float()


AnyTeacher = Teacher | CachedTeacher


class KnowledgeDistillation:
    """`alpha T^2 KL(q || p) + gamma CE(y, p)` (Hinton et al. 2015, section 2).

    q is the mean of the teachers' softmax at `temperature` T, p the student's, CE is at temperature
    1. With gamma = 1 - alpha, its default, this is the loss of recipe 1 (Rejina 2026, equation 1).
    The teachers get the student's inputs, augmented and mixed ("function matching", Beyer et al.
    2022). The distributions of cached teachers are further columns of the targets, beside the
    labels, so that mixup and CutMix mix them with the same weights.
    """

    def __init__(
        self,
        teachers: Sequence[AnyTeacher],
        *,
        input: InputSpec,
        classes: tuple[str, ...],
        temperature: float = DistillationConfig.temperature,
        alpha: float = DistillationConfig.alpha,
        gamma: float | None = None,
        loss: ClassificationLoss = ClassificationLoss(),
    ) -> None:
        """Freeze the teachers, in eval mode, for a student with this `input` and these `classes`.

        `loss` is the one on the labels, CE in the formula.

        Raises UsageError for a number out of bounds, FertoolError for teachers of other classes and
        for caches that do not fit each other.
        """
        if gamma is None:
            gamma = 1 - alpha
        _require_bounds(temperature, alpha, gamma)
        if not teachers:
            raise UsageError("there is no teacher", "name at least one model file")

        live: list[Teacher] = []
        orders: list[Tensor] = []
        cached: list[CachedTeacher] = []
        for teacher in teachers:
            order = class_order(teacher.classes, classes)
            if isinstance(teacher, CachedTeacher):
                cached.append(teacher.with_class_order(order))
            else:
                teacher.module.eval().requires_grad_(False)
                live.append(teacher)
                orders.append(order)
        self._cached = CachedTeacherLogits(cached) if cached else None
        self._live = live
        self._orders = orders
        self._teacher_count = len(teachers)
        self._class_count = len(classes)
        self._input = input
        self._temperature = temperature
        self._alpha = alpha
        self._gamma = gamma
        self._loss = loss
        self._device: torch.device | None = None

    @property
    def fingerprint(self) -> str:
        """The parameters of the loss and a digest of each teacher."""
        digests = []
        # By the weights, so that a copy of a teacher's file under another name is the same.
        for teacher in self._live:
            header, _ = pack({}, teacher.module.state_dict())
            digests.append(header["digest"])
        described: dict[str, Any] = {
            "temperature": self._temperature,
            "alpha": self._alpha,
            "gamma": self._gamma,
            "loss": asdict(self._loss),
            "teachers": digests,
        }
        # Only then: runs without cached teachers keep the fingerprint that they had before.
        if self._cached:
            described["recorded"] = self._cached.digests
        return canonical_json(described)

    def plan_epoch(self, epoch: int, targets: Tensor) -> EpochPlan:
        """Return the targets of an epoch, counted from 1, and the augmentation of the images.

        With cached teachers these are the labels [N, K] and the sum of the teachers' distributions
        beside them, [N, 2 K]; without, the labels alone. Raises FertoolError when the caches are of
        another number of images.
        """
        if self._cached is None:
            return targets, None
        probs = self._cached.total_probs(epoch, self._temperature, targets)
        return torch.cat([targets, probs], 1), self._cached.augment_params(epoch, targets.device)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch.

        Inputs are normalized [N, C, S, S], targets [N, K or 2 K] as from `plan_epoch`.
        """
        return self.loss_on_logits(inputs, targets)(module(inputs))

    def loss_on_logits(self, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss as a function of the student's logits [N, K]; the teachers run once."""
        labels = targets[:, : self._class_count]
        cached_probs = targets[:, self._class_count :]
        probs = self.teacher_probs(inputs, cached_probs if self._cached else None)

        def loss(logits: Tensor) -> Tensor:
            soft = distillation_kl_probs(logits, probs, self._temperature)
            return self._alpha * soft + self._gamma * self._loss(logits, labels)

        return loss

    @torch.no_grad()
    def teacher_probs(self, inputs: Tensor, cached_probs: Tensor | None = None) -> Tensor:
        """Return the mean of the teachers' softened distributions [N, K], in the student's classes.

        `cached_probs` [N, K] is the sum of those of the cached teachers.
        """
        # At the first batch, since only then is the student's device known.
        if inputs.device != self._device:
            self._move(inputs.device)
        total = torch.zeros((), device=inputs.device)
        if cached_probs is not None:
            total = cached_probs
        for teacher, order in zip(self._live, self._orders, strict=True):
            # Softened before the mean: it is the mean of distributions, not of logits.
            logits = teacher.logits(inputs, self._input)[:, order]
            total = total + (logits / self._temperature).softmax(1)
        return total / self._teacher_count

    def _move(self, device: torch.device) -> None:
        for teacher in self._live:
            place(teacher.module, device)
        self._orders = [order.to(device) for order in self._orders]
        self._device = device


def _require_bounds(temperature: float, alpha: float, gamma: float) -> None:
    if not 0 < temperature < float("inf"):
        raise UsageError(f"``temperature={temperature}``: must be above 0", "4 is the default")
    if not 0 <= alpha <= 1:
        raise UsageError(
            f"``alpha={alpha}``: must be between 0 and 1",
            "0 is the labels alone, 1 the teachers alone",
        )
    if not 0 <= gamma < float("inf"):
        raise UsageError(f"``gamma={gamma}``: must be 0 or more", "the default is 1 - alpha")


def class_order(teacher: tuple[str, ...], student: tuple[str, ...]) -> Tensor:
    """Return for each of the student's classes its index among the teacher's, int64 [K]."""
    # By name: the order differs between data sets (FER2013 begins with angry, FER+ with neutral).
    differing = sorted(set(teacher) ^ set(student))
    if differing:
        raise FertoolError(
            f"teacher and student differ in their classes: {', '.join(differing)}",
            "use a teacher of the same classes",
        )
    return torch.tensor([teacher.index(name) for name in student])


def adapt_inputs(inputs: Tensor, given: InputSpec, wanted: InputSpec) -> Tensor:
    """Return normalized `inputs` in the form that another network takes.

    Channels, size (by bilinear filtering), mean and standard deviation are converted.
    """
    if given == wanted and inputs.shape[-1] == wanted.size:
        return inputs
    scale = torch.tensor(given.scale, device=inputs.device).view(1, -1, 1, 1)
    zero_point = torch.tensor(given.zero_point, device=inputs.device).view(1, -1, 1, 1)
    # Back to pixels, since the two networks may be normalized by other means and deviations.
    pixels = convert_channels(inputs / scale + zero_point, wanted.channels)
    if pixels.shape[-1] != wanted.size:
        # Antialiased, or a smaller image would keep one pixel of several and lose the others.
        pixels = F.interpolate(
            pixels,
            size=(wanted.size, wanted.size),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
    return to_input(pixels, wanted)
