"""What a file of recorded logits says about itself, as plain data: read and checked without torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from fertool.artifact.header import is_onnx, read_header
from fertool.errors import FertoolError
from fertool.spec import Step, canonical_json, read_header_text

KIND = "logits"
FORMAT = 1
"""Version of the header, apart from that of model files."""


@dataclass(frozen=True)
class ImageSet:
    """Which training images, in which order: `digest` is the SHA-256 of their pixels in this shape."""

    count: int
    channels: int
    size: int
    digest: str


@dataclass(frozen=True)
class LogitsSpec:
    """The header of a logits file; see the section on it in docs/artifact.md.

    `views` fixed changes of each image, drawn by `seed` with the numbers of `augmentation`; 0 views are the images as
    they are. `draws` is the digest of the first view's random numbers. `teachers` are the digests of their files.
    """

    classes: tuple[str, ...]
    images: ImageSet
    teachers: tuple[str, ...]
    views: int
    augmentation: Mapping[str, Any]
    seed: int
    draws: str
    provenance: tuple[Step, ...] = ()
    digest: str = ""
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
                f"{where}: logits of format {version}, this fertool reads format {FORMAT}", "install a newer fertool"
            )
        names = {field.name for field in fields(cls)}
        if names != set(data):
            wrong = ", ".join(sorted(names ^ set(data)))
            raise FertoolError(f"{where}: header keys missing or unknown: {wrong}", "make the file again")
        try:
            read: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value for key, value in data.items()
            }
            steps = tuple(Step(**step) for step in data["provenance"])
            return cls(**{**read, "images": ImageSet(**data["images"]), "provenance": steps})
        except TypeError as error:
            raise FertoolError(f"{where}: the fertool header is damaged ({error})", "make the file again") from None


def is_logits(path: Path) -> bool:
    """Tell a logits file from a model file by its header; raises FertoolError if it has none."""
    if is_onnx(path):
        return False
    try:
        header = json.loads(read_header(path))
    except ValueError:
        return False
    return isinstance(header, dict) and header.get("kind") == KIND


def read_logits_spec(path: Path) -> LogitsSpec:
    """Return the header of a logits file; the logits are neither read nor checked."""
    return LogitsSpec.from_json(read_header(path), str(path))
