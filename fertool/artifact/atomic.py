"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from fertool.errors import FertoolError


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; the old file stays whole if anything fails or kills the process.

    Raises FertoolError when the disk is full or the folder cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise FertoolError(
            f"{path.resolve()}: cannot write ({error.strerror})", "free some space or choose another place with -o"
        ) from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give an empty file that takes the place of `path` when the block ends, and vanishes if the block fails.

    For content that is not in memory as a whole. Raises OSError when the disk is full or the folder cannot be written.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), _mode(path))
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


def require_writable(path: Path, *inputs: Path) -> None:
    """Fail before any work when `path` cannot become a file or is one of the `inputs`.

    Nothing is created, except missing parent folders. Raises FertoolError.
    """
    target = path.resolve()
    for source in inputs:
        if source.resolve() == target:
            raise FertoolError(f"{path}: the output is also an input", "name another file with -o")
    if target.is_dir():
        raise FertoolError(f"{path}: is a folder", "name a file with -o")
    if target.exists() and not target.is_file():
        # Renaming onto /dev/null would put a file in its place.
        raise FertoolError(f"{path}: is not a regular file", "name a file with -o")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise FertoolError(f"{path}: cannot write ({error.strerror})", "choose another place with -o") from None


def _mode(path: Path) -> int:
    """The mode of the file that is replaced, else what the umask leaves of 0666."""
    if path.exists():
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder: Path) -> None:
    # Without it a power cut can bring the old directory entry back.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
