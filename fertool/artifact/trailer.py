"""A header and a digest behind the content of a file whose own format has no room for them.

The trailer is one line of ASCII in the form of an XML comment. Readers of flatbuffers and of ncnn's
layer lists stop before it, and readers of XML skip it.
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
from collections.abc import Iterable
from pathlib import Path

from fertool.artifact.archive import MAX_HEADER_BYTES
from fertool.errors import FertoolError

_DIGITS = 64
_END = re.compile(rb" (?P<digest>[0-9a-f]{64}) (?P<length>[0-9]{9}) -->\n")
_END_LENGTH = 1 + _DIGITS + 1 + 9 + len(" -->\n")
_START = b"\n<!-- fertool "


def append_trailer(path: Path, header: str, companions: Iterable[Path] = ()) -> None:
    """Append a header, and the digest of it, of the file and of its `companions`."""
    # Base 64 has no hyphens, of which two would end a comment.
    encoded = base64.b64encode(header.encode())
    content = path.read_bytes() + _START + encoded
    digest = _digest(content, companions)
    path.write_bytes(content + b" %s %09d -->\n" % (digest, len(encoded)))


def read_trailer(path: Path) -> str:
    """Return the header at the end of a file; raises FertoolError for none or a damaged one."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _END_LENGTH))
        end = _END.fullmatch(file.read())
        if end is None:
            raise without_header(path)
        length = int(end["length"])
        start = size - _END_LENGTH - length - len(_START)
        if start < 0 or length > MAX_HEADER_BYTES:
            raise without_header(path)
        file.seek(start)
        entry = file.read(len(_START) + length)
    if not entry.startswith(_START):
        raise without_header(path)
    try:
        return base64.b64decode(entry.removeprefix(_START), validate=True).decode()
    # UnicodeDecodeError is a ValueError, and so is what base64 raises.
    except ValueError:
        raise without_header(path) from None


def verify_trailer(path: Path, companions: Iterable[Path] = ()) -> None:
    """Raise FertoolError unless a file and its `companions` have the digest of the trailer."""
    content = path.read_bytes()
    end = _END.fullmatch(content[-_END_LENGTH:])
    if end is None:
        raise without_header(path)
    companions = list(companions)
    for companion in companions:
        if not companion.is_file():
            raise FertoolError(
                f"{path}: {companion.name}, which belongs to it, is not beside it",
                "copy both files, or export the model again",
            )
    if _digest(content[:-_END_LENGTH], companions) != end["digest"]:
        names = " and ".join([path.name, *(companion.name for companion in companions)])
        raise FertoolError(
            f"{path}: damaged, the content of {names} does not match the digest",
            "copy the file again with what belongs to it, or export the model again",
        )


def _digest(content: bytes, companions: Iterable[Path]) -> bytes:
    digest = hashlib.sha256(content)
    for companion in companions:
        digest.update(companion.read_bytes())
    return digest.hexdigest().encode()


def without_header(path: Path) -> FertoolError:
    """Return the error for an exported file in which fertool's header is not found."""
    return FertoolError(
        f"{path}: has no header of fertool, or is truncated", "export the model again"
    )
