"""Text files from other people, read with bounded memory whatever they hold."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path, PurePath, PurePosixPath

from fertool.artifact.input_files import require_file
from fertool.errors import FertoolError

LONGEST_LINE = 1 << 22
"""Bytes of a line with its end: a row of 1024 x 1024 gray levels has as many."""
_LONGEST_PATH = 1024
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_SHOWN = 60
"""Characters of a wrong path that an error shows."""


def read_lines(path: Path) -> Iterator[bytes]:
    """Yield the lines of a file with their ends, never more than `LONGEST_LINE` bytes.

    Raises FertoolError for what is not a regular file, and naming file and line for a longer line.
    """
    require_file(path)
    # Not by iterating over the file, which reads a line whole, however long.
    with open(path, "rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            _require_length(path, number, len(line))
            yield line


def read_text_lines(path: Path) -> Iterator[str]:
    r"""Yield the lines of a file as text, each with `\n` at its end.

    Raises FertoolError for what is not a regular file, and naming file and line for a line of more
    than `LONGEST_LINE` characters.
    """
    require_file(path)
    # Bytes that are not UTF-8 become surrogates, so that they still name files.
    encoding, errors = "utf-8", "surrogateescape"
    with open(path, "rb") as opened:
        start = opened.read(len(_UTF16_MARKS[0]))
    # The mark alone decides, since UTF-16 without one cannot be told from other bytes for sure.
    if start in _UTF16_MARKS:
        # Spreadsheets call it Unicode text, and PowerShell writes it.
        encoding, errors = "utf-16", "replace"
    with open(path, encoding=encoding, errors=errors) as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            _require_length(path, number, len(line))
            yield line.removeprefix("\ufeff") if number == 1 else line


def _require_length(path: Path, number: int, length: int) -> None:
    if length > LONGEST_LINE:
        raise FertoolError(
            f"{path}:{number}: a line of more than {LONGEST_LINE:,} bytes",
            "this is not the list that its name says, or a damaged copy: copy it again",
        )


def require_path_inside(name: str, where: str) -> None:
    """Raise FertoolError unless a relative path from a list stays inside the folder it starts from.

    `where` is the file and line of the list.
    """
    # As the list means it, and as this system reads it: on Windows ``C:x`` and ``..\\x`` lead out.
    leads_out = _leads_out(PurePosixPath(name)) or _leads_out(PurePath(name))
    is_malformed = not PurePosixPath(name).parts or "\0" in name or len(name) > _LONGEST_PATH
    if leads_out or is_malformed:
        raise FertoolError(
            f"{where}: '{name[:_SHOWN]}' is not the path of a file inside the data set",
            "copy the list again",
        )


def _leads_out(path: PurePath) -> bool:
    return bool(path.anchor) or ".." in path.parts
