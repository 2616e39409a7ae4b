"""OUT.resume: the state of a run, so that a killed one can go on and end with the same bytes as an undisturbed one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from fertool.artifact.atomic import write_atomic
from fertool.artifact.store import pack, unpack
from fertool.errors import FertoolError


def save_state(path: Path, fingerprint: str, header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
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


def _refused(path: Path, why: str) -> FertoolError:
    return FertoolError(f"{path}: the state of a killed run, but {why}", "delete it, or start anew with --no-resume")
