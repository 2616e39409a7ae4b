"""The zip around tensors, as torch.save writes it: looked at without torch, and before torch reads it.

Members are stored, never deflated, so that no file unpacks to more than it has bytes; and pickles may only call what
tensors are made of, not what makes large objects out of small ones. `fertool.artifact.store` and `--init` read through
`require_bounded`.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from fertool.checked import WrongContentError

MAX_HEADER_BYTES = 16 << 20
"""Of the header as text; headers of large mixed-precision networks have some 100 kB."""
_MAX_PICKLE_BYTES = 64 << 20
_MAX_MEMBERS = 100_000
_ENCRYPTED = 0x1
_ENLARGING = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode", "torch Tensor"}
"""What torch lets a pickle call, and what makes objects of any size."""
_LEGACY_PICKLES = 5
"""At the beginning of a file that torch wrote before 2020: number, version, system, content, keys."""


def read_member(path: Path, name: str, most: int = MAX_HEADER_BYTES) -> bytes:
    """Return a member of at most `most` bytes.

    Raises KeyError where there is none, WrongContentError where it is packed or too long, and what `zipfile` raises.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
        _require_stored(member)
        if member.file_size > most:
            raise WrongContentError(f"{name} has {member.file_size:,} bytes, more than {most:,}")
        return archive.read(member)


def require_bounded(path: Path) -> None:
    """Raise WrongContentError for a file from which torch would read more than it holds, or make more of it.

    Takes zips, the older files of torch.save and plain pickles; what is none of these passes, for torch to refuse.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            _require_plain_pickles(file, _LEGACY_PICKLES)
        return
    size = path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise WrongContentError(f"{len(members):,} members")
        for member in members:
            _require_stored(member)
        if len({member.filename for member in members}) < len(members):
            raise WrongContentError("members of the same name")
        # With a comment, or something before the first member, torch might find another directory than zipfile does.
        if archive.comment or min((member.header_offset for member in members), default=0) != 0:
            raise WrongContentError("something stands before or behind the archive")
        if sum(member.file_size for member in members) > size:
            raise WrongContentError("its members overlap")
        for member in members:
            if member.filename.endswith(".pkl"):
                if member.file_size > _MAX_PICKLE_BYTES:
                    raise WrongContentError(f"{member.filename} has {member.file_size:,} bytes")
                _require_plain_pickles(io.BytesIO(archive.read(member)), 1)


def _require_stored(member: zipfile.ZipInfo) -> None:
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise WrongContentError(f"{member.filename[:80]!r} is compressed, which torch.save never does")
    if member.flag_bits & _ENCRYPTED:
        raise WrongContentError(f"{member.filename[:80]!r} is encrypted")


def _require_plain_pickles(file: IO[bytes], most: int) -> None:
    for _ in range(most):
        for name in _called(file):
            if name in _ENLARGING:
                raise WrongContentError(f"its pickle calls {name.replace(' ', '.')}, which no state dict needs")


def _called(file: IO[bytes]) -> Iterator[str]:
    """Names of what a pickle asks for, as "module name"; none of what is not readable, for torch to refuse."""
    try:
        for opcode, argument, _ in pickletools.genops(file):
            if opcode.name == "GLOBAL":
                yield str(argument)
    except Exception:  # pickletools fails on damage in as many ways as there are opcodes
        return
