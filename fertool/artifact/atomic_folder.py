"""Folders that appear with all of their files, or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from fertool.artifact.atomic import cannot_write, require_writable
from fertool.errors import FertoolError


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a folder of these files, or replace one; no reader sees it with a part of them.

    Raises FertoolError when the disk is full or the folder cannot be written.
    """
    path = path.resolve()
    suffix = f"{secrets.token_hex(4)}.tmp"
    # Beside its place: only inside one file system is a renaming a single step.
    new, old = (path.with_name(f".{path.name}.{kind}-{suffix}") for kind in ("new", "old"))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        new.mkdir()
        for name, content in files.items():
            _write_synced(new / name, content)
        if path.exists():
            os.replace(path, old)
        os.replace(new, path)
    except OSError as error:
        raise cannot_write(path, error) from None
    finally:
        # The old one is back in its place unless the new one has taken it.
        if old.exists() and not path.exists():
            with contextlib.suppress(OSError):
                os.replace(old, path)
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def require_folder_writable(path: Path, own_files: Iterable[str], *inputs: Path) -> None:
    """Raise FertoolError, before any work, where a folder cannot be made or must not be replaced.

    One may be replaced that holds files of these names alone, none of which is one of the `inputs`.
    """
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        raise FertoolError(f"{path}: is no folder", "name a folder as ``output``")
    names = list(own_files)
    if path.is_dir():
        # Python leaves its cache beside programs that were run.
        others = sorted({entry.name for entry in path.iterdir()} - {"__pycache__", *names})
        if others:
            raise FertoolError(
                f"{path}: holds other files ({others[0]}), and a new bundle replaces the folder",
                "name another folder as ``output``, or move them",
            )
        for name in names:
            require_writable(path / name, *inputs)
    # A file in its place, so that the parent is tried.
    require_writable(path.parent / f".{path.name}.probe", *inputs)


def _write_synced(path: Path, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
