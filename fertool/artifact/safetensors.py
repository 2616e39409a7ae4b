"""Read a safetensors file: eight bytes with the length of a JSON header, the header, the numbers.

The format is documented at https://huggingface.co/docs/safetensors. It is recognized by content,
since its files have any name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import torch
from msgspec import Meta
from torch import Tensor

from fertool.strict_json import Count, Text, WrongContentError, as_type, parse_json

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 16 << 20
_METADATA = "__metadata__"
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class _Entry:
    """A tensor in the header; the offsets count bytes from the end of the header."""

    dtype: Literal["F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"]
    shape: Annotated[tuple[Count, ...], Meta(max_length=8)]
    data_offsets: tuple[Count, Count]

    @property
    def numel(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def is_safetensors(path: Path) -> bool:
    """Return whether a file is a safetensors file, by its first bytes."""
    with open(path, "rb") as file:
        start = file.read(_LENGTH_BYTES + 1)
    length = int.from_bytes(start[:_LENGTH_BYTES], "little")
    return start[_LENGTH_BYTES:] == b"{" and length <= path.stat().st_size - _LENGTH_BYTES


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors by name; raises WrongContentError for a damaged file.

    They share the memory of the file's content.
    """
    # A bytearray, over whose memory torch makes tensors that can be written to.
    content = bytearray(path.read_bytes())
    length = int.from_bytes(content[:_LENGTH_BYTES], "little")
    if length > _MAX_HEADER_BYTES:
        raise WrongContentError(f"a header of {length:,} bytes")
    start = _LENGTH_BYTES + length
    header = parse_json(bytes(content[_LENGTH_BYTES:start]))
    header.pop(_METADATA, None)
    entries = as_type(header, dict[Text, _Entry])
    return {name: _tensor(name, entry, content, start) for name, entry in entries.items()}


def _tensor(name: str, entry: _Entry, content: bytearray, start: int) -> Tensor:
    dtype = _DTYPES[entry.dtype]
    begin, end = entry.data_offsets
    size = entry.numel * dtype.itemsize
    if end - begin != size or start + end > len(content):
        raise WrongContentError(
            f"{name}: bytes {begin} to {end} do not hold {entry.dtype} {list(entry.shape)}"
        )
    # torch.frombuffer refuses an empty buffer.
    if not entry.numel:
        return torch.zeros(entry.shape, dtype=dtype)
    flat = torch.frombuffer(content, dtype=dtype, count=entry.numel, offset=start + begin)
    return flat.reshape(entry.shape)
