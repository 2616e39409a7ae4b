"""What a student minimises when teachers are there to listen to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.artifact.store import pack
from fertool.config.training import PrecisionName
from fertool.data.augment import AugmentParams
from fertool.data.pixels import convert_channels, to_input
from fertool.device import place
from fertool.distill.recorded import RecordedAnswers, RecordedTeacher
from fertool.errors import FertoolError, UsageError
from fertool.header_json import canonical_json
from fertool.losses import ClassificationLoss, distillation_kl_probs
from fertool.precision import autocast, resolve_precision
from fertool.spec import InputSpec


@dataclass(frozen=True)
class Teacher:
    """A trained network with the input that it expects, the order of its classes, and the format it computes in."""

    module: nn.Module
    input: InputSpec
    classes: tuple[str, ...]
    precision: PrecisionName = "fp32"

    def logits(self, inputs: Tensor, given: InputSpec) -> Tensor:
        """Return float32 [N, K] for normalised inputs of the form that `given` names, in the order of its classes."""
        dtype = resolve_precision(self.precision, inputs.device, self.module)
        with autocast(dtype, inputs.device):
            answers: Tensor = self.module(adapt(inputs, given, self.input))
        return answers.float()


AnyTeacher = Teacher | RecordedTeacher


class KnowledgeDistillation:
    """`alpha T^2 KL(q || p) + gamma CE(y, p)`, gamma = 1 - alpha (Hinton, Vinyals and Dean 2015; recipe 1).

    q is the mean of the teachers' softmax at `temperature`, p the student's, CE is at temperature 1. The teachers see
    what the student sees, augmented and mixed ("function matching", Beyer et al. 2022). What recorded teachers said
    stands beside the labels, at the right of the targets, so that mixup and CutMix mix it by the same shares.
    """

    def __init__(
        self,
        teachers: Sequence[AnyTeacher],
        *,
        input: InputSpec,
        classes: tuple[str, ...],
        temperature: float = 4.0,
        alpha: float = 0.7,
        gamma: float | None = None,
        loss: ClassificationLoss = ClassificationLoss(),
    ) -> None:
        """Take in the teachers, put into eval mode and frozen, for a student with this `input` and these `classes`.

        `loss` is the one against the labels, CE in the formula.

        Raises UsageError for a bad number, FertoolError for teachers of other classes and for records that do not go
        together.
        """
        if not 0 < temperature < float("inf"):
            raise UsageError(f"--temperature {temperature}: must be above 0", "recipe 1 uses 4")
        if not 0 <= alpha <= 1:
            raise UsageError(
                f"--alpha {alpha}: must be between 0 and 1",
                "0 is the labels alone, 1 the teachers alone",
            )
        gamma = 1 - alpha if gamma is None else gamma
        if not 0 <= gamma < float("inf"):
            raise UsageError(f"--gamma {gamma}: must be 0 or more", "left out, it is 1 - alpha")
        if not teachers:
            raise UsageError("there is no teacher to listen to", "name at least one model file")
        live = [teacher for teacher in teachers if isinstance(teacher, Teacher)]
        recorded = [
            teacher.in_order(class_order(teacher.classes, classes))
            for teacher in teachers
            if isinstance(teacher, RecordedTeacher)
        ]
        self._recorded = RecordedAnswers(recorded) if recorded else None
        self._teachers = live
        for teacher in live:
            teacher.module.eval().requires_grad_(False)
        self._orders = [class_order(teacher.classes, classes) for teacher in live]
        self._count, self._classes = len(teachers), len(classes)
        self._input, self._temperature, self._alpha, self._gamma = input, temperature, alpha, gamma
        self._loss = loss
        self._device: torch.device | None = None

    @property
    def fingerprint(self) -> str:
        """The numbers of the loss and a digest of each teacher."""
        described = {
            "temperature": self._temperature,
            "alpha": self._alpha,
            "gamma": self._gamma,
            "loss": asdict(self._loss),
            "teachers": [pack({}, module.state_dict())[0]["digest"] for module in self._modules],
        }
        return canonical_json(
            {**described, "recorded": self._recorded.digests} if self._recorded else described
        )

    def plan_epoch(self, epoch: int, targets: Tensor) -> tuple[Tensor, AugmentParams | None]:
        """Return the labels [N, K] with what the recorded teachers say beside them, [N, 2 K], and the changes to make.

        `epoch` counts from 1. Without recorded teachers the labels stay alone. Raises FertoolError when the records are
        of another number of images.
        """
        if self._recorded is None:
            return targets, None
        said = self._recorded.total_probs(epoch, self._temperature, targets)
        return torch.cat([targets, said], 1), self._recorded.changes(epoch, targets.device)

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch: normalised inputs [N, C, S, S], targets [N, K or 2 K] as from `plan_epoch`."""
        return self.loss_on_logits(inputs, targets)(module(inputs))

    def loss_on_logits(self, inputs: Tensor, targets: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the loss of a batch as a function of the student's logits [N, K]; the teachers look once."""
        labels, said = targets[:, : self._classes], targets[:, self._classes :]
        probs = self.teacher_probs(inputs, said if self._recorded else None)

        def loss(logits: Tensor) -> Tensor:
            soft = distillation_kl_probs(logits, probs, self._temperature)
            return self._alpha * soft + self._gamma * self._loss(logits, labels)

        return loss

    @torch.no_grad()
    def teacher_probs(self, inputs: Tensor, recorded: Tensor | None = None) -> Tensor:
        """Return the mean of the teachers' softened distributions [N, K], in the student's order of classes.

        `recorded` [N, K] is the sum of those of the recorded teachers.
        """
        if inputs.device != self._device:
            self._move(inputs.device)
        total = torch.zeros((), device=inputs.device) if recorded is None else recorded
        for teacher, order in zip(self._teachers, self._orders, strict=True):
            logits = teacher.logits(inputs, self._input)[:, order]
            total = total + (logits / self._temperature).softmax(1)
        return total / self._count

    @property
    def _modules(self) -> list[nn.Module]:
        return [teacher.module for teacher in self._teachers]

    def _move(self, device: torch.device) -> None:
        for module in self._modules:
            place(module, device)
        self._orders = [order.to(device) for order in self._orders]
        self._device = device


def class_order(theirs: tuple[str, ...], ours: tuple[str, ...]) -> Tensor:
    """Return for each of the student's classes its index among the teacher's, int64 [K]."""
    if set(theirs) != set(ours):
        apart = sorted(set(theirs) ^ set(ours))
        raise FertoolError(
            f"teacher and student differ in their classes: {', '.join(apart)}",
            "use a teacher of the same classes",
        )
    return torch.tensor([theirs.index(name) for name in ours])


def adapt(inputs: Tensor, given: InputSpec, wanted: InputSpec) -> Tensor:
    """Return normalised `inputs` as another network wants them: channels, size by bilinear filtering, mean, std."""
    if given == wanted and inputs.shape[-1] == wanted.size:
        return inputs
    scale = torch.tensor(given.scale, device=inputs.device).view(1, -1, 1, 1)
    zero_point = torch.tensor(given.zero_point, device=inputs.device).view(1, -1, 1, 1)
    pixels = convert_channels(inputs / scale + zero_point, wanted.channels)
    if pixels.shape[-1] != wanted.size:
        pixels = F.interpolate(
            pixels,
            size=(wanted.size, wanted.size),
            mode="bilinear",
            align_corners=False,
            antialias=True,
        )
    return to_input(pixels, wanted)
