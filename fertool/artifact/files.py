"""Files that are read as inputs: regular ones only, and no more of them than there is a reason for."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from fertool.errors import FertoolError

MAX_JSON_BYTES = 32 << 20
"""Of a JSON file; the traces of ResNet-152 have 12 MB."""


def require_file(path: Path) -> None:
    """Raise FertoolError unless `path` is an existing regular file: no folder, device, pipe or socket."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        raise FertoolError(f"{path}: no such file", "check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise FertoolError(f"{path}: cannot be opened ({reason})", "check the path") from None
    if stat.S_ISDIR(mode):
        raise FertoolError(f"{path}: is a folder", "name a file in it")
    if not stat.S_ISREG(mode):
        raise FertoolError(
            f"{path}: is not a regular file", "name a file on the disk, no device or pipe"
        )


def read_bytes(path: Path, most: int) -> bytes:
    """Return the content of a regular file of at most `most` bytes; raises FertoolError for any other."""
    require_file(path)
    try:
        with open(path, "rb") as file:
            content = file.read(most + 1)
    except OSError as error:
        raise FertoolError(
            f"{path}: cannot be read ({error.strerror})", "check the path and its permissions"
        ) from None
    if len(content) > most:
        size = os.stat(path).st_size
        raise FertoolError(
            f"{path}: {size:,} bytes, more than the {most:,} that such a file may have",
            "check the path",
        )
    return content


def read_text(path: Path, most: int) -> str:
    """Return the UTF-8 text of a regular file of at most `most` bytes, without a byte order mark.

    Raises FertoolError for any other.
    """
    try:
        return read_bytes(path, most).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FertoolError(
            f"{path}: not UTF-8 text (byte {error.start})", "save it as UTF-8"
        ) from None
