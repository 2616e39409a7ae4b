"""The files that a workflow writes beside its model, and the check that they can be written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fertool.artifact.input_files import require_file
from fertool.results import Epoch, History

if TYPE_CHECKING:
    from fertool.workflows.data import Data

HISTORY_SUFFIX = ".history.json"
"""What a training's file of epochs has after the name of its model."""


def require_outputs(output: Path, inputs: Iterable[Path], *, trains: bool) -> None:
    """Raise FertoolError when a file cannot be written or would replace an input.

    The files are the model and, if it `trains`, its history and its resume states.
    """
    from fertool.artifact.atomic import require_writable

    inputs = list(inputs)
    require_writable(output, *inputs)
    if trains:
        require_writable(history_path(output), *inputs)
        # The longest name that a state may have.
        require_writable(state_path(output, ".round-999"), *inputs)


def default_output(model: Path, stage: str, suffix: str = ".pt") -> Path:
    """Return the output's name when there is no -o: `model.pt` pruned is `model.pruned.pt`.

    Raises FertoolError for `.` and `/`, which are no files and have no name to follow.
    """
    if not model.name:
        require_file(model)
    part = f".{stage}" if stage else ""
    # Not with_suffix, which takes no "-app".
    return model.with_name(f"{model.stem}{part}{suffix}")


def require_files(files: Sequence[Path], output: Path | None, data: Data | None) -> None:
    """Raise FertoolError for a missing file, and for an output that would replace an input."""
    from fertool.artifact.atomic import require_writable

    inputs = [*files]
    if data:
        inputs += data.files
    if output:
        require_writable(output, *inputs)
    for file in files:
        require_file(file)


def as_path(output: str | Path | None) -> Path | None:
    """Return an output that a caller may have given as text, or not at all."""
    if output is None:
        return None
    return Path(output)


def state_path(output: Path, part: str = "") -> Path:
    """Return where the work that makes `output`, or a `part` of it, keeps its state: OUT.resume."""
    from fertool.artifact.resume_file import resume_path

    return resume_path(output.with_name(f"{output.name}{part}"))


def history_path(output: Path) -> Path:
    """Return where the epochs of the training that makes `output` are written."""
    return output.with_name(f"{output.name}{HISTORY_SUFFIX}")


def write_history(output: Path, history: Iterable[Epoch]) -> None:
    """Write OUT.history.json, atomically: `file`, and under `history` a record for each epoch."""
    content = History(file=output.name, history=tuple(history))
    write_json(history_path(output), content.as_dict())


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write one JSON object to a file, atomically."""
    from fertool.artifact.atomic import write_atomic
    from fertool.report.printable import json_text

    write_atomic(path, f"{json_text(value)}\n".encode())
