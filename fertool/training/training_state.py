"""The state of a training run in the file OUT.resume.

Every epoch derives its random numbers from the seed and its own number, so no generator's state is
saved.
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
from fertool.training.optimizer import WeightAverage

_SECTIONS = ("module", "average", "adapters", "optimizer", "best")


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: number from 1, last learning rate, mean losses in nats, wall time in seconds."""

    epoch: Annotated[int, Meta(ge=1, le=10_000_000)]
    lr: NonNegative
    train_loss: Finite
    val_loss: Finite
    val_accuracy: Fraction
    seconds: NonNegative


class _ScalerState(TypedDict, total=False):
    """The state of a torch.amp.GradScaler, empty where it is disabled."""

    scale: NonNegative
    growth_factor: NonNegative
    backoff_factor: NonNegative
    growth_interval: Positive
    _growth_tracker: Count


@dataclass(frozen=True)
class _Header:
    """What a state holds besides tensors: the epochs so far, and the gradient scaler's state."""

    history: tuple[EpochRecord, ...]
    scaler: _ScalerState

    def __post_init__(self) -> None:
        for number, record in enumerate(self.history, start=1):
            if record.epoch != number:
                raise ValueError("the epochs of `history` are not numbered from 1")


@dataclass
class TrainingState:
    """What one epoch leaves to the next; `best` holds the tensors of the best epoch so far.

    `average` is the moving average of the weights, `adapters` are the layers of the objective.
    """

    module: nn.Module
    average: WeightAverage | None
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: dict[str, Tensor]
    history: list[EpochRecord]
    adapters: nn.Module | None = None

    @property
    def evaluated_module(self) -> nn.Module:
        """The network that is validated and returned: the moving average, if there is one."""
        if self.average is None:
            return self.module
        return self.average.module


def read_history(path: Path) -> tuple[EpochRecord, ...]:
    """Return the epochs of a killed run; none for an unreadable file, which `fit` then refuses."""
    try:
        header, _ = unpack(path)
        return parse_header(header, _Header).history
    except (FertoolError, WrongContentError):
        return ()


def save_training_state(path: Path, fingerprint: str, state: TrainingState) -> None:
    """Write the state atomically: a kill leaves the file of this epoch or of the one before."""
    header = {
        "history": [asdict(record) for record in state.history],
        "scaler": state.scaler.state_dict(),
    }
    save_state(path, fingerprint, header, _flatten(state))


def load_training_state(path: Path, fingerprint: str, state: TrainingState) -> None:
    """Fill `state` from the file, if there is one.

    Raises FertoolError for a damaged file and for one of another run.
    """
    loaded = load_state(path, fingerprint)
    if loaded is None:
        return
    # Everything is checked before anything is changed.
    with wrapping_state_errors(path):
        header = parse_header(loaded[0], _Header)
        sections = _unflatten(loaded[1])
        _require_matching(sections, state)
        if header.history:
            require_same_tensors("best", sections["best"], state.evaluated_module.state_dict())
        if header.scaler.keys() != state.scaler.state_dict().keys():
            raise WrongContentError("`scaler` is of another precision")

    state.module.load_state_dict(sections["module"])
    if state.average is not None:
        state.average.module.load_state_dict(sections["average"])
    if state.adapters is not None:
        state.adapters.load_state_dict(sections["adapters"])
    _load_optimizer(state.optimizer, sections["optimizer"])
    if state.scaler.is_enabled():
        state.scaler.load_state_dict(dict(header.scaler))
    state.best = sections["best"]
    state.history = list(header.history)


def _average_tensors(state: TrainingState) -> dict[str, Tensor]:
    return {} if state.average is None else state.average.module.state_dict()


def _adapter_tensors(state: TrainingState) -> dict[str, Tensor]:
    return {} if state.adapters is None else state.adapters.state_dict()


def _require_matching(sections: Mapping[str, Mapping[str, Tensor]], state: TrainingState) -> None:
    """Raise WrongContentError unless the file has exactly the tensors of the run."""
    require_same_tensors("module", sections["module"], state.module.state_dict())
    require_same_tensors("average", sections["average"], _average_tensors(state))
    require_same_tensors("adapters", sections["adapters"], _adapter_tensors(state))
    _require_matching_optimizer(sections["optimizer"], state.optimizer)


def _require_matching_optimizer(
    flat: Mapping[str, Tensor], optimizer: torch.optim.Optimizer
) -> None:
    """Raise WrongContentError unless each parameter has a whole optimizer state, or none.

    Parameters that are frozen in the first epochs have none until they are trained.
    """
    wanted = {"step", "exp_avg", "exp_avg_sq"}
    if isinstance(optimizer, torch.optim.SGD):
        wanted = {"momentum_buffer"}

    parameters = _parameters(optimizer)
    keys_of: dict[int, set[str]] = {}
    for name, value in flat.items():
        index_text, _, key = name.partition(".")
        index = _parameter_index(index_text)
        if index is None or index >= len(parameters):
            raise WrongContentError(f"optimizer/{name} is unknown")
        shape = torch.Size() if key == "step" else parameters[index].shape
        if value.shape != shape or not value.is_floating_point():
            raise WrongContentError(f"optimizer/{name} is of another shape or type")
        keys_of.setdefault(index, set()).add(key)

    for index, keys in keys_of.items():
        if keys != wanted:
            raise WrongContentError(
                f"optimizer/{index} has {listed(sorted(keys))}, not {listed(sorted(wanted))}"
            )


def _parameter_index(text: str) -> int | None:
    # Bounded, since int() takes seconds for a million digits out of a damaged file.
    if text.isascii() and text.isdigit() and len(text) < 9:
        return int(text)
    return None


def _flatten(state: TrainingState) -> dict[str, Tensor]:
    """Return all tensors of the state under `section/name`."""
    optimizer_tensors: dict[str, Tensor] = {}
    for index, entry in state.optimizer.state_dict()["state"].items():
        for key, value in entry.items():
            if value is not None:
                optimizer_tensors[f"{index}.{key}"] = torch.as_tensor(value)

    sections: dict[str, Mapping[str, Tensor]] = {
        "module": state.module.state_dict(),
        "average": _average_tensors(state),
        "adapters": _adapter_tensors(state),
        "optimizer": optimizer_tensors,
        "best": state.best,
    }
    tensors: dict[str, Tensor] = {}
    for section, values in sections.items():
        for name, value in values.items():
            tensors[f"{section}/{name}"] = value
    return tensors


def _unflatten(tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return the tensors by section and name; raises WrongContentError for an unknown section."""
    sections: dict[str, dict[str, Tensor]] = {section: {} for section in _SECTIONS}
    for name, value in tensors.items():
        section, _, key = name.partition("/")
        if section not in sections:
            raise WrongContentError(f"{name} is unknown")
        sections[section][key] = value
    return sections


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Return the parameters in the order of their indices in the optimizer's state."""
    parameters: list[Tensor] = []
    for group in optimizer.param_groups:
        parameters += group["params"]
    return parameters


def _load_optimizer(optimizer: torch.optim.Optimizer, flat: Mapping[str, Tensor]) -> None:
    parameters = _parameters(optimizer)
    state: dict[int, dict[str, Any]] = {}
    for name, value in flat.items():
        index_text, _, key = name.partition(".")
        index = int(index_text)
        tensor = value
        if value.shape == parameters[index].shape:
            # The file holds contiguous tensors; elementwise kernels may round differently in
            # another memory format than that of the undisturbed run.
            tensor = torch.empty_like(parameters[index]).copy_(value)
        state.setdefault(index, {})[key] = tensor.detach()
    param_groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": param_groups})
