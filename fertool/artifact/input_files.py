"""Reading of input files: regular files of a bounded size only."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fertool.errors import FertoolError

MAX_JSON_BYTES = 32 << 20
"""Of a JSON file; the Hessian traces of ResNet-152 have 12 MB."""


def require_file(path: Path) -> None:
    """Raise FertoolError unless `path` is a regular file: no folder, device, pipe or socket."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FertoolError(f"{path}: no such file", "check the path") from None
    # ValueError: a null character in the name.
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FertoolError(f"{path}: cannot be opened ({reason})", "check the path") from None
    if stat.S_ISDIR(mode):
        raise FertoolError(f"{path}: is a folder", "name a file in it")
    if not stat.S_ISREG(mode):
        raise FertoolError(
            f"{path}: is not a regular file", "name a file on the disk, no device or pipe"
        )


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Return the content of a regular file of at most `max_bytes`.

    Raises FertoolError for any other.
    """
    require_file(path)
    try:
        with open(path, "rb") as file:
            # One more, which tells a file that is too long; its size may be unknown before.
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot be read ({error.strerror})", "check the path and its permissions"
        ) from None
    if len(content) > max_bytes:
        size = os.stat(path).st_size
        raise FertoolError(
            f"{path}: {size:,} bytes, more than the {max_bytes:,} that such a file may have",
            "check the path",
        )
    return content


def read_text(path: Path, max_bytes: int) -> str:
    """Return the UTF-8 text of a regular file of at most `max_bytes`, without a byte order mark.

    Raises FertoolError for any other.
    """
    # Editors on Windows write the byte order mark, which no parser of JSON accepts.
    try:
        return read_bytes(path, max_bytes).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FertoolError(
            f"{path}: not UTF-8 text (byte {error.start})", "save it as UTF-8"
        ) from None
