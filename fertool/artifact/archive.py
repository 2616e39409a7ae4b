"""The zip around tensors, as torch.save writes it: looked at without torch, and before torch reads it.

Members are stored, never deflated, so that no file unpacks to more than it has bytes; and pickles may only call what
tensors are made of, not what makes large objects out of small ones. `fertool.artifact.store` and `--init` read through
`require_bounded`.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

from fertool.checked import WrongContentError

MAX_HEADER_BYTES = 16 << 20
"""Of the header as text; headers of large mixed-precision networks have some 100 kB."""
_MAX_PICKLE_BYTES = 64 << 20
_MAX_OPCODES = 2_000_000
"""Of a pickle; torch.save writes 30 for a tensor."""
_MAX_IN_A_TUPLE = 10_000
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
        raise WrongContentError(
            f"{member.filename[:80]!r} is compressed, which torch.save never does"
        )
    if member.flag_bits & _ENCRYPTED:
        raise WrongContentError(f"{member.filename[:80]!r} is encrypted")


def _require_plain_pickles(file: IO[bytes], most: int) -> None:
    for _ in range(most):
        pile = _Pile()
        try:
            for opcode, argument, _ in pickletools.genops(file):
                pile.take(opcode, argument)
        except WrongContentError:
            raise
        except Exception:  # pickletools fails on damage in as many ways as there are opcodes; torch is to refuse it
            return


class _Pile:
    """The stack of a pickle while it is read: of each object only how many objects a tuple of it has, repeats counted.

    As a key of a map a tuple is hashed with all that it holds: a few bytes that repeat what is inside each other would
    take for ever, and very deep ones more stack than there is.
    """

    def __init__(self) -> None:
        self._sizes: list[int | None] = []
        self._memo: dict[int, int | None] = {}
        self._opcodes = 0

    def take(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Follow one opcode; raises WrongContentError for what no state dict needs."""
        self._opcodes += 1
        if self._opcodes > _MAX_OPCODES:
            raise WrongContentError(f"its pickle has more than {_MAX_OPCODES:,} parts")
        if opcode.name == "GLOBAL" and argument in _ENLARGING:
            raise WrongContentError(
                f"its pickle calls {argument.replace(' ', '.')}, which no state dict needs"
            )
        if opcode.name in ("BINPUT", "LONG_BINPUT", "PUT"):
            self._memo[argument] = self._sizes[-1]
        elif opcode.name == "MEMOIZE":
            self._memo[len(self._memo)] = self._sizes[-1]
        elif opcode.name in ("BINGET", "LONG_BINGET", "GET"):
            self._sizes.append(self._memo[argument])
        else:
            self._replace(opcode)

    def _replace(self, opcode: pickletools.OpcodeInfo) -> None:
        """Take from the stack and put on it what an opcode does; None stands for a mark."""
        inside = 0
        for kind in reversed(opcode.stack_before):
            if kind is pickletools.stackslice:
                continue
            if kind is pickletools.markobject:
                while (size := self._sizes.pop()) is not None:
                    inside += size
            else:
                inside += self._sizes.pop() or 0
        is_tuple = opcode.name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
        if is_tuple and inside > _MAX_IN_A_TUPLE:
            raise WrongContentError(
                "its pickle holds tuples inside each other that no state dict needs"
            )
        for kind in opcode.stack_after:
            marks = kind is pickletools.markobject
            self._sizes.append(None if marks else 1 + inside * is_tuple)
