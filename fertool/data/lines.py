"""Text files from outside, read with little memory whatever they hold."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from fertool.artifact.header import require_file
from fertool.errors import FertoolError

LONGEST_LINE = 1 << 22
"""Bytes of a line, its end included: a row of 1024 x 1024 gray levels has as many."""
_LONGEST_PATH = 1024


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, never more than `LONGEST_LINE` bytes.

    Raises FertoolError for what is no regular file, and naming file and line for a longer line.
    """
    require_file(path)
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise FertoolError(
                    f"{path}:{number}: a line of more than {LONGEST_LINE:,} bytes",
                    "this is not the list that its name says, or a damaged copy: copy it again",
                )
            yield line


def read_text_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a file as text: UTF-8, with other bytes kept as surrogates, so that they still name files.

    Raises what `read_lines` raises.
    """
    for number, line in enumerate(read_lines(path)):
        text = line.decode("utf-8", "surrogateescape")
        yield text.removeprefix("\ufeff") if number == 0 else text


def require_path_inside(name: str, where: str) -> None:
    """Raise FertoolError unless a name from a list leads to something inside the folder that it starts from.

    `where` is the file and line of the list.
    """
    place = PurePosixPath(name)
    leads_out = place.is_absolute() or ".." in place.parts
    if leads_out or not place.parts or "\0" in name or len(name) > _LONGEST_PATH:
        raise FertoolError(
            f"{where}: '{name[:60]}' is not the path of a file inside the data set",
            "copy the list again",
        )
