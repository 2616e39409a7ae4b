"""OUT.resume: the state from which a killed run resumes and ends with the same bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from fertool.artifact.atomic import write_atomic
from fertool.artifact.store import pack, unpack
from fertool.errors import FertoolError
from fertool.strict_json import WrongContentError, as_type, listed

T = TypeVar("T")


def save_state(
    path: Path, fingerprint: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a state atomically; `fingerprint` is a digest of all that decides the result."""
    _, content = pack({**header, "fingerprint": fingerprint}, tensors)
    write_atomic(path, content)


def load_state(path: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return header and tensors of a state, None where there is no file.

    `fingerprint` is that of the run that would resume. Raises FertoolError for a damaged file, or
    one of another run.
    """
    if not path.exists():
        return None
    try:
        header, tensors = unpack(path)
    except FertoolError as error:
        raise _unusable(path, f"not readable ({error.message})") from None
    # Refused, not ignored: hours of training should not be overwritten for a mistyped option.
    if header.get("fingerprint") != fingerprint:
        raise _unusable(path, "of a run with other options, data or weights")
    return header, tensors


def parse_header(header: Mapping[str, Any], kind: type[T]) -> T:
    """Return the header of a state as `kind`.

    Raises WrongContentError for other keys, types and values.
    """
    own = {key: value for key, value in header.items() if key not in ("fingerprint", "digest")}
    return as_type(own, kind, known_only=True)


def require_same_tensors(
    section: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]
) -> None:
    """Raise WrongContentError unless two sets of tensors agree in names, shapes and types.

    `section` is the part of the state that they belong to, for the message.
    """
    problems = [f"{section}/{name} is missing" for name in wanted if name not in found]
    for name, tensor in found.items():
        if name not in wanted:
            problems.append(f"{section}/{name} is unknown")
        elif not _has_layout_of(tensor, wanted[name]):
            problems.append(f"{section}/{name} is of another shape or type")
    if problems:
        raise WrongContentError(listed(problems))


def _has_layout_of(tensor: Tensor, other: Tensor) -> bool:
    return tensor.shape == other.shape and tensor.dtype == other.dtype


@contextmanager
def wrapping_state_errors(path: Path) -> Iterator[None]:
    """Turn a WrongContentError about the content of a state into the error of its file."""
    try:
        yield
    except WrongContentError as error:
        raise _unusable(path, f"with other content: {error}") from None


def _unusable(path: Path, reason: str) -> FertoolError:
    return FertoolError(
        f"{path}: the state of a killed run, but {reason}",
        "delete it, or start anew with ``resume=False``",
    )
