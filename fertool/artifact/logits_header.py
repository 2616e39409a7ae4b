"""The header of a file of cached teacher logits, as plain data: read and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from fertool.artifact.header import format_of, read_header
from fertool.errors import FertoolError
from fertool.header_json import DAMAGED, canonical_json, read_header_text, require_keys
from fertool.spec import Channels, Classes, Digest, ProvenanceStep, Side
from fertool.strict_json import Finite, Name, Positive, Seed, as_type, wrapping_content_errors

KIND = "logits"
FORMAT = 1
"""Version of the header, independent of that of model files."""


@dataclass(frozen=True)
class ImageSet:
    """The training images in their order; `digest` is the SHA-256 of their pixels in this shape."""

    count: Positive
    channels: Channels
    size: Side
    digest: Digest


@dataclass(frozen=True)
class LogitsSpec:
    """The header of a logits file; see the section on it in docs/artifact.md.

    `views` is the number of fixed augmentations of each image, drawn by `seed` with the numbers of
    `augmentation`; 0 views are the images as they are. `draws` is the digest of the first view's
    random numbers. `teachers` are the digests of their files.
    """

    classes: Classes
    images: ImageSet
    teachers: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=1000)]
    views: Annotated[int, Meta(ge=0, le=10_000)]
    augmentation: Annotated[Mapping[Name, Finite | tuple[Finite, ...]], Meta(max_length=100)]
    seed: Seed
    draws: Digest
    provenance: Annotated[tuple[ProvenanceStep, ...], Meta(max_length=1000)] = ()
    digest: Digest = ""
    kind: str = KIND
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the canonical text, the same bytes for the same content."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> LogitsSpec:
        """Read a header.

        Raises FertoolError naming `where` for another kind of file, a newer format or damage.
        """
        data, kind, version = read_header_text(text, where)
        if kind != KIND:
            raise FertoolError(
                f"{where}: a {kind} file, not a logits file",
                "record one with fertool distill and ``save_logits=FILE``",
            )
        if version != FORMAT:
            raise FertoolError(
                f"{where}: logits of format {version}, this fertool reads format {FORMAT}",
                "install a newer fertool",
            )
        require_keys(data, cls, where)
        with wrapping_content_errors(where, DAMAGED, "make the file again"):
            return as_type(data, cls, known_only=True)


def is_logits(path: Path) -> bool:
    """Return whether a file has logits, not a model; raises FertoolError if it has no header."""
    # No format that networks are exported to has files of logits.
    if format_of(path):
        return False
    _, kind, _ = read_header_text(read_header(path), str(path))
    return kind == KIND


def read_logits_spec(path: Path) -> LogitsSpec:
    """Return the header of a logits file, without reading the logits."""
    return LogitsSpec.from_json(read_header(path), str(path))
