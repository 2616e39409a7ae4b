"""What a training keeps in OUT.resume.

Every epoch derives its random numbers from the seed and its own number, so no generator's state is kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypedDict

import torch
from msgspec import Meta
from torch import Tensor, nn

from fertool.artifact.resume_state import (
    load_state,
    parse_header,
    require_same_tensors,
    save_state,
    wrapping_state_errors,
)
from fertool.artifact.store import unpack
from fertool.errors import FertoolError
from fertool.strict_json import (
    Count,
    Finite,
    Fraction,
    NonNegative,
    Positive,
    WrongContentError,
    listed,
)
from fertool.train.optim import WeightAverage

_SECTIONS = ("module", "average", "adapters", "optimizer", "best")


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: its number from 1, the last step's learning rate, mean losses in nats, and the wall time."""

    epoch: Annotated[int, Meta(ge=1, le=10_000_000)]
    lr: NonNegative
    train_loss: Finite
    val_loss: Finite
    val_accuracy: Fraction
    seconds: NonNegative


class _Scaler(TypedDict, total=False):
    """The state of a torch.amp.GradScaler, empty where it is off."""

    scale: NonNegative
    growth_factor: NonNegative
    backoff_factor: NonNegative
    growth_interval: Positive
    _growth_tracker: Count


@dataclass(frozen=True)
class _Header:
    """What a state holds besides tensors: the epochs so far, and the gradient scaler's state."""

    history: tuple[EpochRecord, ...]
    scaler: _Scaler

    def __post_init__(self) -> None:
        if any(record.epoch != number for number, record in enumerate(self.history, start=1)):
            raise ValueError("the epochs of `history` are not numbered from 1")


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
        return parse_header(unpack(path)[0], _Header).history
    except (FertoolError, WrongContentError):
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
    with wrapping_state_errors(path):
        header = parse_header(state[0], _Header)
        sections = _sections(state[1])
        _require_fit(sections, progress)
        if header.history:
            require_same_tensors("best", sections["best"], progress.judged.state_dict())
        if header.scaler.keys() != progress.scaler.state_dict().keys():
            raise WrongContentError("`scaler` is of another precision")
    progress.module.load_state_dict(sections["module"])
    if progress.average is not None:
        progress.average.module.load_state_dict(sections["average"])
    if progress.adapters is not None:
        progress.adapters.load_state_dict(sections["adapters"])
    _load_optimizer(progress.optimizer, sections["optimizer"])
    if progress.scaler.is_enabled():
        progress.scaler.load_state_dict(dict(header.scaler))
    progress.best = sections["best"]
    progress.history = list(header.history)


def _require_fit(sections: Mapping[str, Mapping[str, Tensor]], progress: Progress) -> None:
    """Raise WrongContentError unless every tensor has its place in the run, and every place its tensor."""
    average = {} if progress.average is None else progress.average.module.state_dict()
    adapters = {} if progress.adapters is None else progress.adapters.state_dict()
    require_same_tensors("module", sections["module"], progress.module.state_dict())
    require_same_tensors("average", sections["average"], average)
    require_same_tensors("adapters", sections["adapters"], adapters)
    _require_optimizer(sections["optimizer"], progress.optimizer)


def _require_optimizer(flat: Mapping[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    """Raise WrongContentError unless each parameter has the whole of a state, or none: some learn from later on."""
    wanted = (
        {"momentum_buffer"}
        if isinstance(optimizer, torch.optim.SGD)
        else {"step", "exp_avg", "exp_avg_sq"}
    )
    parameters = _parameters(optimizer)
    keys: dict[int, set[str]] = {}
    for name, value in flat.items():
        number, _, key = name.partition(".")
        index = (
            int(number)
            if number.isascii() and number.isdigit() and len(number) < 9
            else len(parameters)
        )
        if index >= len(parameters):
            raise WrongContentError(f"optimizer/{name} is unknown")
        like = parameters[index]
        if value.shape != (() if key == "step" else like.shape) or not value.is_floating_point():
            raise WrongContentError(f"optimizer/{name} is of another shape or type")
        keys.setdefault(index, set()).add(key)
    wrong = [index for index, own in keys.items() if own != wanted]
    if wrong:
        raise WrongContentError(
            f"optimizer/{wrong[0]} has {listed(sorted(keys[wrong[0]]))}, not {listed(sorted(wanted))}"
        )


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
    return {
        f"{section}/{name}": value
        for section, values in sections.items()
        for name, value in values.items()
    }


def _sections(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    sections: dict[str, dict[str, Tensor]] = {section: {} for section in _SECTIONS}
    for name, value in tensors.items():
        section, _, key = name.partition("/")
        if section not in sections:
            raise WrongContentError(f"{name} is unknown")
        sections[section][key] = value
    return sections


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    state: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        index, _, key = name.partition(".")
        like = parameters[int(index)]
        # The file holds plain tensors; elementwise kernels may round differently in another memory format.
        laid_out = torch.empty_like(like).copy_(value) if value.shape == like.shape else value
        state.setdefault(int(index), {})[key] = laid_out.detach()
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
