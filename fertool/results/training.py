"""The epochs of a training: OUT.history.json, and a key of every command that trains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from msgspec import UNSET, Meta, UnsetType

from fertool.results.fields import Nats, Result, WallTime, described
from fertool.strict_json import Count, Fraction, NonNegative, Text


@dataclass(frozen=True, kw_only=True)
class Epoch(Result):
    """One epoch of a training."""

    round: Annotated[
        Count | UnsetType, described("number of the training, where a model is trained repeatedly")
    ] = UNSET
    phase: Annotated[Text | UnsetType, described("what that training is for")] = UNSET
    epoch: Annotated[int, Meta(ge=1, le=10_000_000), described("number of the epoch, from 1")]
    lr: Annotated[NonNegative, described("learning rate of the last step")] = 0.0
    train_loss: Annotated[Nats, described("mean over the training images")]
    val_loss: Annotated[Nats, described("mean over the validation images")]
    val_accuracy: Annotated[Fraction, described("fraction of the validation images")]
    seconds: Annotated[WallTime, described("duration")] = 0.0

    @property
    def rank(self) -> tuple[float, float]:
        """What the best epoch has most of: accuracy, and of equal ones the lower loss."""
        return self.val_accuracy, -self.val_loss


Epochs = Annotated[
    tuple[Epoch, ...],
    Meta(min_length=1, max_length=1_000_000),
    described("one for each epoch, of all trainings"),
]


@dataclass(frozen=True, kw_only=True)
class History(Result):
    """OUT.history.json, or the JSON of a command that trains."""

    file: Annotated[Text, described("the model")] = ""
    history: Epochs
