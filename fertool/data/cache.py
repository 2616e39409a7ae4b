"""Arrays that took time to make, kept under the user's cache folder by the digest of what they were made from."""

from __future__ import annotations

import io
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fertool.artifact.atomic import write_atomic
from fertool.errors import FertoolError

Arrays = Mapping[str, NDArray[Any]]

_DAMAGE = (OSError, ValueError, KeyError, EOFError, NotImplementedError, struct.error, zipfile.BadZipFile, zlib.error)


def cache_folder() -> Path:
    """Return $FERTOOL_CACHE, else `fertool` under $XDG_CACHE_HOME or ~/.cache; it need not exist."""
    if own := os.environ.get("FERTOOL_CACHE"):
        return Path(own)
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "fertool"


def cached(key: str, make: Callable[[], Arrays], on_note: Callable[[str], None]) -> Arrays:
    """Return the arrays stored under `key`, or make and store them.

    A damaged file (the zip's checksums tell) is made again. A folder that cannot be written costs a note, no more.
    """
    path = cache_folder() / f"{key}.npz"
    stored = _load(path)
    if stored is not None:
        return stored
    arrays = make()
    content = io.BytesIO()
    np.savez(content, **dict(arrays))  # type: ignore[arg-type]  # the stubs mistake names for allow_pickle
    try:
        write_atomic(path, content.getvalue())
    except FertoolError as error:
        on_note(f"the data is not cached: {error.message}")
    return arrays


def _load(path: Path) -> Arrays | None:
    try:
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except _DAMAGE:
        return None
