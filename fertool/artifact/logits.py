"""What a file of recorded logits says about itself, as plain data: read and checked without torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from fertool.artifact.header import is_onnx, read_header
from fertool.checked import Finite, Name, Positive, Seed, as_type, refusing
from fertool.errors import FertoolError
from fertool.spec import (
    DAMAGED,
    Channels,
    Classes,
    Digest,
    Side,
    Step,
    canonical_json,
    read_header_text,
    require_keys,
)

KIND = "logits"
FORMAT = 1
"""Version of the header, apart from that of model files."""


@dataclass(frozen=True)
class ImageSet:
    """Which training images, in which order: `digest` is the SHA-256 of their pixels in this shape."""

    count: Positive
    channels: Channels
    size: Side
    digest: Digest


@dataclass(frozen=True)
class LogitsSpec:
    """The header of a logits file; see the section on it in docs/artifact.md.

    `views` fixed changes of each image, drawn by `seed` with the numbers of `augmentation`; 0 views are the images as
    they are. `draws` is the digest of the first view's random numbers. `teachers` are the digests of their files.
    """

    classes: Classes
    images: ImageSet
    teachers: Annotated[tuple[Digest, ...], Meta(min_length=1, max_length=1000)]
    views: Annotated[int, Meta(ge=0, le=10_000)]
    augmentation: Annotated[Mapping[Name, Finite | tuple[Finite, ...]], Meta(max_length=100)]
    seed: Seed
    draws: Digest
    provenance: Annotated[tuple[Step, ...], Meta(max_length=1000)] = ()
    digest: Digest = ""
    kind: str = KIND
    format: int = FORMAT

    def to_json(self) -> str:
        """Return the canonical text: sorted keys, no spaces, the same bytes for the same content."""
        return canonical_json(asdict(self))

    @classmethod
    def from_json(cls, text: str, where: str) -> LogitsSpec:
        """Read a header; raises FertoolError naming `where` for another kind of file, a newer format or damage."""
        data, kind, version = read_header_text(text, where)
        if kind != KIND:
            raise FertoolError(
                f"{where}: a {kind} file, not a logits file",
                "record one with: fertool distill MODEL --save-logits FILE",
            )
        if version != FORMAT:
            raise FertoolError(
                f"{where}: logits of format {version}, this fertool reads format {FORMAT}",
                "install a newer fertool",
            )
        require_keys(data, cls, where)
        with refusing(where, DAMAGED, "make the file again"):
            return as_type(data, cls, known_only=True)


def is_logits(path: Path) -> bool:
    """Tell a logits file from a model file by its header; raises FertoolError if it has none."""
    if is_onnx(path):
        return False
    _, kind, _ = read_header_text(read_header(path), str(path))
    return kind == KIND


def read_logits_spec(path: Path) -> LogitsSpec:
    """Return the header of a logits file; the logits are neither read nor checked."""
    return LogitsSpec.from_json(read_header(path), str(path))
