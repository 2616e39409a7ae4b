"""Atomic writes, and temporary files that a later run recognizes when their writer was killed.

A writer holds a lock (flock) on its temporary file. The system drops the lock when the writer ends,
however it ends: a temporary file without a lock is a leftover of a killed writer, and the next
writer in the same folder removes it. Windows has no such lock; there a leftover is removed when it
is a day old.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache
from io import BufferedWriter
from pathlib import Path
from typing import TypeVar

from fertool.errors import FertoolError

try:
    import fcntl
except ImportError:
    HAS_LOCKS = False
else:
    HAS_LOCKS = True

_LONGEST_NAME = 200
"""Bytes of a file's name that its temporary file repeats; most file systems allow 255 in all."""
_FOREIGN_AGE_S = 86_400
"""Seconds without a change after which a temporary file counts as a leftover whose lock is not
visible here: that of another machine, or on a system without locks any."""
_FILE = re.compile(r"\..+\.(?P<machine>[0-9a-f]{8})-[a-z0-9_]{8}\.tmp", re.DOTALL)
_FOLDER = re.compile(r"fertool-(?P<machine>[0-9a-f]{8})-[a-z0-9_]{8}")
"""Names of temporary files and folders."""
_Handle = TypeVar("_Handle", int, int | None)


def write_atomic(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step.

    The old file stays whole if anything fails or kills the process. Raises FertoolError when the
    disk is full or the folder cannot be written.
    """
    try:
        with replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise cannot_write(path, error) from None


def cannot_write(path: Path, error: OSError) -> FertoolError:
    """Return the error for a file or folder whose writing the system has refused."""
    return FertoolError(
        f"{path}: cannot write ({error.strerror})", "free some space or choose another ``output``"
    )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BufferedWriter]:
    """Yield an empty file that replaces `path` when the block ends, and is removed if it fails.

    For content that is not in memory as a whole. Raises OSError when the disk is full or the folder
    cannot be written.
    """
    path = _resolve(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)
    prefix = f".{_shorten(path.name)}.{_machine_id()}-"

    # In the same folder: only inside one file system is the replacement a single step.
    def make() -> tuple[int, str]:
        return tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=".tmp")

    handle, name = _make_locked(make)
    try:
        with os.fdopen(handle, "wb") as file:
            # Before Python 3.13 Windows has no such function, and hardly any modes.
            if hasattr(os, "fchmod"):
                os.fchmod(file.fileno(), _mode(path))
            yield file
            file.flush()
            # Before the replacement: after a power cut the name must not lead to an empty file.
            os.fsync(file.fileno())
            # Still locked: another writer would take an unlocked file for a leftover.
            if HAS_LOCKS:
                os.replace(name, path)
        # Windows renames no open file.
        if not HAS_LOCKS:
            os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield an empty folder under $TMPDIR that is removed with its content when the block ends.

    Raises OSError when none can be made.
    """
    parent = Path(tempfile.gettempdir())
    _remove_unlocked(parent, _FOLDER, shutil.rmtree)

    def make() -> tuple[int | None, str]:
        name = tempfile.mkdtemp(prefix=f"fertool-{_machine_id()}-")
        # Windows opens no folders.
        return os.open(name, os.O_RDONLY) if HAS_LOCKS else None, name

    handle, name = _make_locked(make)
    try:
        yield Path(name)
    finally:
        shutil.rmtree(name, ignore_errors=True)
        if handle is not None:
            os.close(handle)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporary files of killed writers from `folder`."""
    _remove_unlocked(folder, _FILE, os.unlink)


def require_writable(path: Path, *inputs: Path) -> None:
    """Raise FertoolError, before any work, when `path` cannot be written or is one of the `inputs`.

    Creates nothing except missing parent folders.
    """
    try:
        target = _resolve(path)
        for source in inputs:
            if _is_same(source, target):
                raise FertoolError(
                    f"{path}: the output is also an input", "name another file as ``output``"
                )
        if target.is_dir():
            raise FertoolError(f"{path}: is a folder", "name a file as ``output``")
        # Renaming onto /dev/null would put a file in its place.
        if target.exists() and not target.is_file():
            raise FertoolError(f"{path}: is not a regular file", "name a file as ``output``")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot write ({error.strerror})",
            "choose another place or name as ``output``",
        ) from None


def _resolve(path: Path) -> Path:
    """Return where the links of `path` lead; raises OSError where they lead nowhere."""
    if "\0" in str(path):
        raise OSError(0, "its name contains a null character")
    try:
        return path.resolve()
    # Up to Python 3.12; later versions raise OSError themselves.
    except RuntimeError:
        raise OSError(0, "its links lead back to themselves") from None


def _is_same(source: Path, target: Path) -> bool:
    try:
        return _resolve(source) == target
    # The reader of the input reports what is wrong with it.
    except OSError:
        return False


def _shorten(name: str) -> str:
    """Return a name that leaves room for what a temporary file adds to it."""
    encoded = os.fsencode(name)
    if len(encoded) <= _LONGEST_NAME:
        return name
    return hashlib.sha256(encoded).hexdigest()[:32]


@cache
def _machine_id() -> str:
    """Return eight hexadecimal digits that identify this machine since its boot.

    Containers on one machine share them.
    """
    # Not the host name, of which each container has its own, though they may share a folder.
    try:
        identity = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")
    except OSError:
        identity = platform.node()
    return hashlib.sha256(identity.encode()).hexdigest()[:8]


def _make_locked(make: Callable[[], tuple[_Handle, str]]) -> tuple[_Handle, str]:
    """Return handle and name of a new temporary file or folder that is locked and still exists."""
    while True:
        handle, name = make()
        if not HAS_LOCKS or handle is None:
            return handle, name
        # A file system without locks: there nothing counts as a leftover.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        if _still_exists(handle, name):
            return handle, name
        # Another process removed it as a leftover between its creation and its lock.
        os.close(handle)


def _still_exists(handle: int, name: str) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(name, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _remove_unlocked(
    folder: Path, pattern: re.Pattern[str], remove: Callable[[Path], None]
) -> None:
    """Remove the leftovers in a folder whose names match; what cannot be removed stays."""
    # Never an error: a leftover costs space only, and the next run tries again.
    try:
        names = os.listdir(folder)
    except OSError:
        return

    for name in names:
        found = pattern.fullmatch(name)
        if not found:
            continue
        # Where no lock can be seen, only its age tells a leftover.
        shows_lock = HAS_LOCKS and found["machine"] == _machine_id()
        with contextlib.suppress(OSError):
            if not shows_lock and _age_s(folder / name) < _FOREIGN_AGE_S:
                continue
            if HAS_LOCKS:
                _remove_if_unlocked(folder / name, remove)
            else:
                remove(folder / name)


def _age_s(path: Path) -> float:
    """Return the seconds since the last change of a file or folder, no link to one."""
    return time.time() - path.lstat().st_mtime


def _remove_if_unlocked(path: Path, remove: Callable[[Path], None]) -> None:
    """Remove a temporary file or folder that no writer holds.

    Raises OSError where a writer holds it, or it cannot be removed.
    """
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        # Shared, for a network file system grants no other lock on a file open for reading.
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        # With the lock still held: a writer that has just made it waits, and then makes another.
        remove(path)
    finally:
        os.close(handle)


def _mode(path: Path) -> int:
    """Return the mode of the file that is replaced, else what the umask leaves of 0666."""
    if path.exists():
        return path.stat().st_mode & 0o777
    # The only way to read the umask is to set it.
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


def _sync_folder(folder: Path) -> None:
    """Write the entries of a folder to the disk, where its file system can."""
    # Without it a power cut can bring the old directory entry back.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
