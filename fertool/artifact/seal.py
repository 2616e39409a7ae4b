"""A digest at the end of an ONNX file, over every byte before it.

The digest is the last entry of the model's metadata. Protobuf messages that follow each other are one message, so that
the entry is simply put behind the rest, and is found there without reading a graph.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from fertool.errors import FertoolError

SEAL_KEY = "fertool_sha256"
_DIGITS = 64
_ENTRY = b"\x0a" + bytes([len(SEAL_KEY)]) + SEAL_KEY.encode() + b"\x12" + bytes([_DIGITS])
"""A StringStringEntryProto up to its value: field 1 is the key, field 2 the value."""
_HEAD = b"\x72" + bytes([len(_ENTRY) + _DIGITS]) + _ENTRY
"""What comes before the digest: the entry as field 14 of a ModelProto, its metadata."""
_LENGTH = len(_HEAD) + _DIGITS
_BLOCK_BYTES = 1 << 20


def sealed(content: bytes) -> bytes:
    """Return a serialized ONNX model with the digest of its bytes behind it."""
    return content + _HEAD + hashlib.sha256(content).hexdigest().encode()


def check_seal(path: Path) -> bool:
    """Return whether an ONNX file has a digest; raises FertoolError when its bytes are not those of the digest."""
    with open(path, "rb") as file:
        rest = file.seek(0, os.SEEK_END) - _LENGTH
        if rest < 0:
            return False
        file.seek(rest)
        seal = file.read(_LENGTH)
        if not seal.startswith(_HEAD):
            return False
        file.seek(0)
        digest = hashlib.sha256()
        while rest:
            block = file.read(min(rest, _BLOCK_BYTES))
            if not block:
                break
            digest.update(block)
            rest -= len(block)
    if digest.hexdigest().encode() != seal.removeprefix(_HEAD):
        raise FertoolError(
            f"{path}: damaged, its content does not match its digest",
            "export or copy the file again",
        )
    return True
