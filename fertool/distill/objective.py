"""What a student minimises when teachers are there to listen to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fertool.artifact.store import pack
from fertool.data.pixels import to_input, with_channels
from fertool.device import place
from fertool.errors import FertoolError, UsageError
from fertool.losses import ClassificationLoss, distillation_kl_probs
from fertool.spec import InputSpec, canonical_json


@dataclass(frozen=True)
class Teacher:
    """A trained network with the input that it expects and the order of its classes."""

    module: nn.Module
    input: InputSpec
    classes: tuple[str, ...]


class KnowledgeDistillation:
    """`alpha T^2 KL(q || p) + (1 - alpha) CE(y, p)` (Hinton, Vinyals and Dean 2015; recipe 1).

    q is the mean of the teachers' softmax at `temperature`, p the student's, CE is at temperature 1. The teachers see
    what the student sees, augmented and mixed ("function matching", Beyer et al. 2022).
    """

    def __init__(
        self,
        teachers: Sequence[Teacher],
        *,
        input: InputSpec,
        classes: tuple[str, ...],
        temperature: float = 4.0,
        alpha: float = 0.7,
        loss: ClassificationLoss = ClassificationLoss(),
    ) -> None:
        """Take in the teachers, put into eval mode and frozen, for a student with this `input` and these `classes`.

        `loss` is the one against the labels, CE in the formula.

        Raises UsageError for a bad number, FertoolError for teachers of other classes.
        """
        if not 0 < temperature < float("inf"):
            raise UsageError(f"--temperature {temperature}: must be above 0", "recipe 1 uses 4")
        if not 0 <= alpha <= 1:
            raise UsageError(f"--alpha {alpha}: must be between 0 and 1", "0 is the labels alone, 1 the teachers alone")
        if not teachers:
            raise UsageError("there is no teacher to listen to", "name at least one model file")
        self._teachers = [teacher.module.eval().requires_grad_(False) for teacher in teachers]
        self._inputs = [teacher.input for teacher in teachers]
        self._orders = [_class_order(teacher.classes, classes) for teacher in teachers]
        self._input, self._temperature, self._alpha = input, temperature, alpha
        self._loss = loss
        self._device: torch.device | None = None

    @property
    def fingerprint(self) -> str:
        """The numbers of the loss and a digest of each teacher."""
        return canonical_json(
            {
                "temperature": self._temperature,
                "alpha": self._alpha,
                "loss": asdict(self._loss),
                "teachers": [pack({}, module.state_dict())[0]["digest"] for module in self._teachers],
            }
        )

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch: normalised inputs [N, C, S, S], target distributions [N, K]."""
        logits = module(inputs)
        soft = distillation_kl_probs(logits, self.teacher_probs(inputs), self._temperature)
        return self._alpha * soft + (1 - self._alpha) * self._loss(logits, targets)

    @torch.no_grad()
    def teacher_probs(self, inputs: Tensor) -> Tensor:
        """Return the mean of the teachers' softened distributions [N, K], in the student's order of classes."""
        if inputs.device != self._device:
            self._move(inputs.device)
        total = torch.zeros((), device=inputs.device)
        for module, wanted, order in zip(self._teachers, self._inputs, self._orders, strict=True):
            logits = module(_adapt(inputs, self._input, wanted)).float()[:, order]
            total = total + (logits / self._temperature).softmax(1)
        return total / len(self._teachers)

    def _move(self, device: torch.device) -> None:
        for module in self._teachers:
            place(module, device, torch.channels_last)
        self._orders = [order.to(device) for order in self._orders]
        self._device = device


def _class_order(theirs: tuple[str, ...], ours: tuple[str, ...]) -> Tensor:
    """Return for each of the student's classes its index among the teacher's, int64 [K]."""
    if set(theirs) != set(ours):
        apart = sorted(set(theirs) ^ set(ours))
        raise FertoolError(
            f"teacher and student differ in their classes: {', '.join(apart)}", "use a teacher of the same classes"
        )
    return torch.tensor([theirs.index(name) for name in ours])


def _adapt(inputs: Tensor, given: InputSpec, wanted: InputSpec) -> Tensor:
    """Return normalised `inputs` as another network wants them: channels, size by bilinear filtering, mean, std."""
    if given == wanted and inputs.shape[-1] == wanted.size:
        return inputs
    scale = torch.tensor(given.scale, device=inputs.device).view(1, -1, 1, 1)
    zero_point = torch.tensor(given.zero_point, device=inputs.device).view(1, -1, 1, 1)
    pixels = with_channels(inputs / scale + zero_point, wanted.channels)
    if pixels.shape[-1] != wanted.size:
        pixels = F.interpolate(
            pixels, size=(wanted.size, wanted.size), mode="bilinear", align_corners=False, antialias=True
        )
    return to_input(pixels, wanted)
