"""What a training keeps in OUT.resume.

Every epoch derives its random numbers from the seed and its own number, so no generator's state is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from fertool.artifact.resume import load_state, save_state
from fertool.artifact.store import unpack
from fertool.errors import FertoolError
from fertool.train.optim import WeightAverage


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: its number from 1, the last step's learning rate, mean losses in nats, and the wall time."""

    epoch: int
    lr: float
    train_loss: float
    val_loss: float
    val_accuracy: float
    seconds: float


@dataclass
class Progress:
    """What an epoch leaves to the next one; `best` are the tensors of the best epoch so far.

    `adapters` are the layers that only the objective has.
    """

    module: nn.Module
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: dict[str, Tensor]
    history: list[EpochRecord]
    adapters: nn.Module | None = None

    @property
    def judged(self) -> nn.Module:
        """The network that validation looks at and that the run hands over: the running mean, if there is one."""
        return self.module if self.average is None else self.average.module


def read_history(path: Path) -> tuple[EpochRecord, ...]:
    """Return the epochs that a killed run has behind it; none where no file can be read, which `fit` then refuses."""
    try:
        return tuple(EpochRecord(**record) for record in unpack(path)[0]["history"])
    except (FertoolError, KeyError, TypeError):
        return ()


def save_progress(path: Path, fingerprint: str, progress: Progress) -> None:
    """Write the state atomically: killed at any moment, the file is that of this epoch or of the one before."""
    header = {
        "history": [asdict(record) for record in progress.history],
        "scaler": progress.scaler.state_dict(),
    }
    save_state(path, fingerprint, header, _flatten(progress))


def load_progress(path: Path, fingerprint: str, progress: Progress) -> None:
    """Fill `progress` from the file, if there is one; raises FertoolError if it is damaged or of another run."""
    state = load_state(path, fingerprint)
    if state is None:
        return
    header, tensors = state
    sections = _sections(tensors)
    progress.module.load_state_dict(sections["module"])
    if progress.average is not None:
        progress.average.module.load_state_dict(sections["average"])
    if progress.adapters is not None:
        progress.adapters.load_state_dict(sections["adapters"])
    _load_optimizer(progress.optimizer, sections.get("optimizer", {}))
    if progress.scaler.is_enabled():
        progress.scaler.load_state_dict(header["scaler"])
    progress.best = sections["best"]
    progress.history = [EpochRecord(**record) for record in header["history"]]


def _flatten(progress: Progress) -> dict[str, Tensor]:
    state = progress.optimizer.state_dict()["state"]
    optimizer = {
        f"{index}.{key}": torch.as_tensor(value)
        for index, entry in state.items()
        for key, value in entry.items()
        if value is not None
    }
    sections: dict[str, Mapping[str, Tensor]] = {
        "module": progress.module.state_dict(),
        "average": progress.average.module.state_dict() if progress.average is not None else {},
        "adapters": progress.adapters.state_dict() if progress.adapters is not None else {},
        "optimizer": optimizer,
        "best": progress.best,
    }
    return {f"{section}/{name}": value for section, values in sections.items() for name, value in values.items()}


def _sections(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    sections: dict[str, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        section, _, key = name.partition("/")
        sections.setdefault(section, {})[key] = value
    return sections


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    parameters: Sequence[Tensor] = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        # The file holds plain tensors; elementwise kernels may round differently in another memory format.
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = laid_out.detach()
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
