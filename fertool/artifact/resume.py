"""OUT.resume: the state of a run, so that a killed one can go on and end with the same bytes as an undisturbed one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from fertool.artifact.atomic import write_atomic
from fertool.artifact.store import pack, unpack
from fertool.checked import WrongContentError, as_type, listed
from fertool.errors import FertoolError

T = TypeVar("T")


def save_state(
    path: Path, fingerprint: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write a state atomically; `fingerprint` is the digest of everything that decides how the run ends."""
    write_atomic(path, pack({**header, "fingerprint": fingerprint}, tensors)[1])


def load_state(path: Path, fingerprint: str) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
    """Return header and tensors of the file, if there is one; raises FertoolError for a damaged or another run's."""
    if not path.exists():
        return None
    try:
        header, tensors = unpack(path)
    except FertoolError as error:
        raise _refused(path, f"not readable ({error.message})") from None
    if header.get("fingerprint") != fingerprint:
        raise _refused(path, "of a run with other options, data or weights")
    return header, tensors


def typed_header(header: Mapping[str, Any], kind: type[T]) -> T:
    """Return the header of a state as `kind`; raises WrongContentError for other keys, types and values."""
    own = {key: value for key, value in header.items() if key not in ("fingerprint", "digest")}
    return as_type(own, kind, known_only=True)


def require_alike(section: str, found: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
    """Raise WrongContentError unless two sets of tensors agree in names, shapes and types."""
    problems = [f"{section}/{name} is missing" for name in wanted if name not in found]
    problems += [f"{section}/{name} is unknown" for name in found if name not in wanted]
    problems += [
        f"{section}/{name} is of another shape or type"
        for name, tensor in found.items()
        if name in wanted
        and (tensor.shape, tensor.dtype) != (wanted[name].shape, wanted[name].dtype)
    ]
    if problems:
        raise WrongContentError(listed(problems))


@contextmanager
def taking_over(path: Path) -> Iterator[None]:
    """Turn what is wrong with the content of a state into the error of its file."""
    try:
        yield
    except WrongContentError as error:
        raise _refused(path, f"with other content: {error}") from None


def _refused(path: Path, why: str) -> FertoolError:
    return FertoolError(
        f"{path}: the state of a killed run, but {why}", "delete it, or start anew with --no-resume"
    )
