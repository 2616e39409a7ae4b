"""A digest at the end of an ONNX file, over every byte before it.

The digest is the last entry of the model's metadata. Protobuf messages that follow each other are
one message, so that the entry is simply appended, and is found there without reading a graph.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import BinaryIO

from fertool.errors import FertoolError

DIGEST_KEY = "fertool_sha256"
_DIGITS = 64
# The wire format of protobuf: the number of a field and its type, the length, the content.
_ENTRY = b"\x0a" + bytes([len(DIGEST_KEY)]) + DIGEST_KEY.encode() + b"\x12" + bytes([_DIGITS])
"""A StringStringEntryProto up to its value: field 1 is the key, field 2 the value."""
_PREFIX = b"\x72" + bytes([len(_ENTRY) + _DIGITS]) + _ENTRY
"""The bytes before the digest: the entry as field 14 of a ModelProto, its metadata."""
_SUFFIX_LENGTH = len(_PREFIX) + _DIGITS
_BLOCK_BYTES = 1 << 20


def append_digest(content: bytes) -> bytes:
    """Return a serialized ONNX model with the digest of its bytes appended."""
    return content + _PREFIX + hashlib.sha256(content).hexdigest().encode()


def verify_digest(path: Path) -> bool:
    """Return whether an ONNX file has a digest.

    Raises FertoolError when it has one that its bytes do not match.
    """
    with open(path, "rb") as file:
        content_length = file.seek(0, os.SEEK_END) - _SUFFIX_LENGTH
        if content_length < 0:
            return False
        file.seek(content_length)
        suffix = file.read(_SUFFIX_LENGTH)
        if not suffix.startswith(_PREFIX):
            return False
        file.seek(0)
        digest = _sha256(file, content_length)
    if digest != suffix.removeprefix(_PREFIX):
        raise FertoolError(
            f"{path}: damaged, its content does not match its digest",
            "export or copy the file again",
        )
    return True


def _sha256(file: BinaryIO, length: int) -> bytes:
    """Return the hexadecimal digest of the next `length` bytes, or of all there are."""
    digest = hashlib.sha256()
    remaining = length
    # In blocks: a file of weights may be larger than memory.
    while remaining:
        block = file.read(min(remaining, _BLOCK_BYTES))
        if not block:
            break
        digest.update(block)
        remaining -= len(block)
    return digest.hexdigest().encode()
