"""Files that appear whole or not at all, and temporary files that a later run recognizes when their writer was killed.

A writer holds a lock (flock) on what it has begun. The system drops the lock when the writer ends, however it ends:
what nobody holds is what a killed writer has left, and the next one in the same folder removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO

from fertool.errors import FertoolError

_LONGEST_NAME = 200
"""Bytes of a file's name that its temporary repeats; most file systems allow 255 in all."""
_FOREIGN_AGE_S = 86_400
"""After so long without a change what another machine has begun counts as left; its locks may not be seen here."""
_FILE = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-[a-z0-9_]{8}\.tmp", re.DOTALL)
_FOLDER = re.compile(r"fertool-(?P<machine>[0-9a-f]{8})-[a-z0-9_]{8}")


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step; the old file stays whole if anything fails or kills the process.

    Raises FertoolError when the disk is full or the folder cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot write ({error.strerror})",
            "free some space or choose another place with -o",
        ) from None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """Give an empty file that takes the place of `path` when the block ends, and vanishes if the block fails.

    For content that is not in memory as a whole. Raises OSError when the disk is full or the folder cannot be written.
    """
    path = _resolved(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    prefix = f".{_short(path.name)}.{_machine()}-"
    handle, name = _locked(lambda: tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp"))
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


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Give an empty folder under $TMPDIR that vanishes with its content when the block ends.

    Raises OSError when none can be made.
    """
    parent = Path(tempfile.gettempdir())
    _remove_dead(parent, _FOLDER, shutil.rmtree)

    def make() -> tuple[int, str]:
        name = tempfile.mkdtemp(prefix=f"fertool-{_machine()}-")
        return os.open(name, os.O_RDONLY), name

    handle, name = _locked(make)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers have left of the files that they were writing to `folder`."""
    _remove_dead(folder, _FILE, os.unlink)


def require_writable(path: Path, *inputs: Path) -> None:
    """Fail before any work when `path` cannot become a file or is one of the `inputs`.

    Nothing is created, except missing parent folders. Raises FertoolError.
    """
    try:
        target = _resolved(path)
        for source in inputs:
            if _is_same(source, target):
                raise FertoolError(
                    f"{path}: the output is also an input", "name another file with -o"
                )
        if target.is_dir():
            raise FertoolError(f"{path}: is a folder", "name a file with -o")
        if target.exists() and not target.is_file():
            # Renaming onto /dev/null would put a file in its place.
            raise FertoolError(f"{path}: is not a regular file", "name a file with -o")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot write ({error.strerror})", "choose another place or name with -o"
        ) from None


def _resolved(path: Path) -> Path:
    """Return where the links of `path` lead; raises OSError where they lead nowhere."""
    if "\0" in str(path):
        raise OSError(0, "its name contains a null character")
    try:
        return path.resolve()
    except RuntimeError:  # up to Python 3.12
        raise OSError(0, "its links lead back to themselves") from None


def _is_same(source: Path, target: Path) -> bool:
    try:
        return _resolved(source) == target
    except OSError:  # whoever reads the input says what is wrong with it
        return False


def _short(name: str) -> str:
    """Return a name that leaves room for what a temporary file adds to it."""
    encoded = os.fsencode(name)
    return name if len(encoded) <= _LONGEST_NAME else hashlib.sha256(encoded).hexdigest()[:32]


@cache
def _machine() -> str:
    """Return eight hexadecimal digits that name this machine since its start; its containers share them."""
    try:
        own = Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        own = platform.node()
    return hashlib.sha256(own.encode()).hexdigest()[:8]


def _locked(make: Callable[[], tuple[int, str]]) -> tuple[int, str]:
    """Return the open handle and the name of something new that nobody takes for left: it is locked and still there."""
    while True:
        handle, name = make()
        with contextlib.suppress(
            OSError
        ):  # a file system without locks: nothing counts as left there
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_there(handle, name):
            return handle, name
        # Another process has looked at it between its making and its lock.
        os.close(handle)


def _is_there(handle: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_dead(folder: Path, pattern: re.Pattern[str], remove: Callable[[Path], None]) -> None:
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        found = pattern.fullmatch(name)
        if found:
            with contextlib.suppress(OSError):
                _remove_if_dead(folder / name, remove, foreign=found["machine"] != _machine())


def _remove_if_dead(path: Path, remove: Callable[[Path], None], *, foreign: bool) -> None:
    """Remove what nobody writes any more; raises OSError where that cannot be said, or it cannot be removed."""
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if foreign and time.time() - os.fstat(handle).st_mtime < _FOREIGN_AGE_S:
            return
        # Shared, for a network's file system grants no other lock on a file that is open for reading.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # With the lock still held: a writer that has just made it waits for the lock, and then makes another.
        remove(path)
    finally:
        os.close(handle)


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
