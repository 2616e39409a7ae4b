"""The JSON text of a file's header: canonical, checked, its graphs and tables compressed."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from fertool.errors import FertoolError
from fertool.graph.ir import Graph
from fertool.strict_json import (
    Name,
    WrongContentError,
    as_type,
    listed,
    missing_keys,
    parse_json,
    shown,
    wrapping_content_errors,
)

DAMAGED = "the fertool header is damaged"

_MAX_TABLE_BYTES = 16 << 20
"""Of an uncompressed table of bits, so that a small file cannot fill the memory."""
_MAX_GRAPH_BYTES = 4 << 20
"""Of an uncompressed graph, and of all profiles' together; a network of 200 nodes takes 20 kB."""
_PIECE = 5 << 14
"""Characters that are decompressed at a time; base85 has groups of five."""


def canonical_json(value: Any) -> str:
    """Return `value` as JSON with sorted keys and no spaces."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def digest_text(text: str) -> str:
    """Return the SHA-256 of a text as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def read_header_text(text: str, where: str) -> tuple[dict[str, Any], str, int]:
    """Return a header's fields, the kind of file and the version of its format.

    Raises FertoolError naming `where`.
    """
    with wrapping_content_errors(
        where, "the fertool header is not readable", "make the file again"
    ):
        data = parse_json(text)
        start = as_type(data, _HeaderStart)
    return data, start.kind, start.format


@dataclass(frozen=True)
class _HeaderStart:
    """The fields that decide how the rest of a header is read."""

    format: int
    kind: Name = "model"


def require_keys(data: Mapping[str, Any], kind: type[Any], where: str) -> None:
    """Raise FertoolError unless a header has the keys of `kind`, except those with a default."""
    known = {entry.name for entry in fields(kind)}
    unknown = set(data) - known
    wrong = sorted([*unknown, *missing_keys(data, kind)])
    if wrong:
        raise FertoolError(
            f"{where}: header keys missing or unknown: {listed(wrong)}", "make the file again"
        )


def compress_graph(graph: Graph) -> str:
    """Return a graph as a text: its own JSON behind zlib and base85."""
    return compress_text(canonical_json(graph.to_builtins()))


def decompress_graphs(texts: Iterable[Any], key: str) -> Iterator[Graph]:
    """Yield the graphs of texts under `key`; raises WrongContentError for a malformed one."""
    # One limit for all: a header may have sixteen profiles.
    remaining = _MAX_GRAPH_BYTES
    for text in texts:
        if not isinstance(text, str):
            raise WrongContentError(f"`{key}` is {shown(text)}, expected text")
        content = _decompress_text(text, key, max_bytes=remaining)
        remaining -= len(content)
        yield Graph.from_builtins(parse_json(content))


def compress_text(text: str) -> str:
    """Return a text behind zlib and base85."""
    return base64.b85encode(zlib.compress(text.encode(), level=9)).decode()


def expand_quant(data: Any) -> Any:
    """Return the value under `quant` in a header, with the bits of each layer as a list.

    In an ONNX file it is a text: the same JSON behind zlib and base85. Malformed parts are returned
    as they are, for the check of types to report.
    """
    if isinstance(data, str):
        data = parse_json(_decompress_text(data, "quant", max_bytes=_MAX_TABLE_BYTES))
    if not isinstance(data, dict) or not isinstance(data.get("weights"), dict):
        return data
    weights = {name: _expand_bits(layer) for name, layer in data["weights"].items()}
    return {**data, "weights": weights}


def _expand_bits(layer: Any) -> Any:
    """Return the entry of a layer with its digit for each channel as a list of numbers."""
    bits = layer.get("bits") if isinstance(layer, dict) else None
    if not isinstance(bits, str):
        return layer
    # isdigit alone accepts digits of other scripts.
    if not (bits.isascii() and bits.isdigit()):
        return layer
    return {**layer, "bits": [int(digit) for digit in bits]}


def _decompress_text(text: str, key: str, max_bytes: int) -> bytes:
    """Return the text behind zlib and base85.

    Raises WrongContentError for what is malformed or longer than `max_bytes`.
    """
    decompressor = zlib.decompressobj()
    content = bytearray()
    try:
        # Piece by piece: base85 of the standard library is slow, and what is too long shows early.
        for start in range(0, len(text), _PIECE):
            piece = base64.b85decode(text[start : start + _PIECE])
            # One byte more than allowed, by which a text that is too long is recognized.
            content += decompressor.decompress(piece, max_bytes - len(content) + 1)
            if len(content) > max_bytes:
                break
    except (ValueError, zlib.error) as error:
        raise WrongContentError(f"`{key}` does not unpack ({error})") from None
    if not decompressor.eof or len(content) > max_bytes:
        raise WrongContentError(f"`{key}` is cut off, or unpacks to more than {max_bytes:,} bytes")
    return bytes(content)
