"""Check the zip and the pickles that torch.save writes, before torch reads them.

Members must be stored, never deflated, so that no file unpacks to more than it has bytes; pickles
may only call what tensors are made of, not what makes large objects out of small ones.
`fertool.artifact.store` and the readers of foreign checkpoints read through `require_bounded`.
"""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import IO, Any

from fertool.strict_json import WrongContentError

MAX_HEADER_BYTES = 16 << 20
"""Of the header as text; headers of large mixed-precision networks have some 100 kB."""
_MAX_PICKLE_BYTES = 64 << 20
_MAX_OPCODES = 2_000_000
"""Of a pickle; torch.save writes 30 for a tensor."""
_MAX_TUPLE_OBJECTS = 10_000
"""Objects inside of a tuple, with those of the tuples in it."""
_MAX_MEMBERS = 100_000
_ENCRYPTED = 0x1
_ENLARGING = {"builtins bytearray", "__builtin__ bytearray", "_codecs encode", "torch Tensor"}
"""What torch lets a pickle call, and what makes objects of any size."""
_LEGACY_PICKLES = 5
"""At the start of a file that torch wrote before 2020: number, version, system, content, keys."""
_SHOWN = 80
"""Characters of a member's name that an error shows."""


def read_member(path: Path, name: str, max_bytes: int = MAX_HEADER_BYTES) -> bytes:
    """Return a member of at most `max_bytes` bytes.

    Raises KeyError where there is none, WrongContentError where it is packed or too long, and what
    `zipfile` raises.
    """
    with zipfile.ZipFile(path) as archive:
        member = archive.getinfo(name)
        _require_stored(member)
        if member.file_size > max_bytes:
            raise WrongContentError(
                f"{name} has {member.file_size:,} bytes, more than {max_bytes:,}"
            )
        return archive.read(member)


def require_bounded(path: Path) -> None:
    """Raise WrongContentError for a file from which torch would make more than it holds.

    Reads zips, the older files of torch.save and plain pickles; a file that is none of these
    passes, for torch to refuse.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            _require_plain_pickles(file, max_pickles=_LEGACY_PICKLES)
        return
    with zipfile.ZipFile(path) as archive:
        _require_plain_zip(archive, path.stat().st_size)
        for member in archive.infolist():
            if not member.filename.endswith(".pkl"):
                continue
            if member.file_size > _MAX_PICKLE_BYTES:
                raise WrongContentError(f"{member.filename} has {member.file_size:,} bytes")
            _require_plain_pickles(io.BytesIO(archive.read(member)), max_pickles=1)


def _require_plain_zip(archive: zipfile.ZipFile, file_size: int) -> None:
    """Raise WrongContentError for a zip that torch.save would not write."""
    members = archive.infolist()
    if len(members) > _MAX_MEMBERS:
        raise WrongContentError(f"{len(members):,} members")
    names: set[str] = set()
    offsets: list[int] = []
    total_size = 0
    for member in members:
        _require_stored(member)
        names.add(member.filename)
        offsets.append(member.header_offset)
        total_size += member.file_size

    if len(names) < len(members):
        raise WrongContentError("members of the same name")
    # With a comment, or something before the first member, torch might find another directory than
    # zipfile does.
    if archive.comment or min(offsets, default=0) != 0:
        raise WrongContentError("there are bytes before or behind the archive")
    # Each member may be as large as the file, and there may be a hundred thousand of them.
    if total_size > file_size:
        raise WrongContentError("its members overlap")


def _require_stored(member: zipfile.ZipInfo) -> None:
    """Raise WrongContentError for a member that is compressed or encrypted."""
    if member.compress_type != zipfile.ZIP_STORED or member.compress_size != member.file_size:
        raise WrongContentError(
            f"{member.filename[:_SHOWN]!r} is compressed, which torch.save never does"
        )
    if member.flag_bits & _ENCRYPTED:
        raise WrongContentError(f"{member.filename[:_SHOWN]!r} is encrypted")


def _require_plain_pickles(file: IO[bytes], max_pickles: int) -> None:
    """Raise WrongContentError for a pickle that could make more objects than it has bytes.

    `max_pickles` are read, one after another. What is not a pickle passes, for torch to refuse.
    """
    for _ in range(max_pickles):
        stack = _PickleStack()
        try:
            for opcode, argument, _ in pickletools.genops(file):
                stack.follow(opcode, argument)
        except WrongContentError:
            raise
        # pickletools fails on damage in as many ways as there are opcodes.
        except Exception:
            return


class _PickleStack:
    """The stack of the pickle machine, with numbers of objects in place of the objects.

    Only tuples have more than one: all objects in them, repeats counted. As a key of a map a tuple
    is hashed with all that it holds: a few bytes that nest references to the same tuple would take
    forever, and very deep ones more stack than there is.
    """

    def __init__(self) -> None:
        # None stands for a mark.
        self._sizes: list[int | None] = []
        self._memo: dict[int, int | None] = {}
        self._opcodes = 0

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Execute one opcode; raises WrongContentError for one that no state dict needs."""
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
            self._apply(opcode)

    def _apply(self, opcode: pickletools.OpcodeInfo) -> None:
        """Pop and push what an opcode does."""
        popped = self._pop(opcode)
        is_tuple = opcode.name in ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
        if is_tuple and popped > _MAX_TUPLE_OBJECTS:
            raise WrongContentError(
                "its pickle holds tuples inside each other that no state dict needs"
            )
        # Lists and maps are not hashed: whatever they hold, they count as one object.
        size = 1 + popped if is_tuple else 1
        for pushed in opcode.stack_after:
            is_mark = pushed is pickletools.markobject
            self._sizes.append(None if is_mark else size)

    def _pop(self, opcode: pickletools.OpcodeInfo) -> int:
        """Pop the operands of an opcode and return how many objects they are."""
        popped = 0
        for operand in reversed(opcode.stack_before):
            # The slice is what lies above the mark, which is popped with the mark.
            if operand is pickletools.stackslice:
                continue
            if operand is pickletools.markobject:
                while (size := self._sizes.pop()) is not None:
                    popped += size
            else:
                popped += self._sizes.pop() or 0
        return popped
