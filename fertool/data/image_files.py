"""The image files of a folder."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from fertool.data.decoding import image_suffixes


def image_files(folder: Path, others: Counter[str] | None = None) -> list[Path]:
    """Return the image files directly inside a folder, sorted by name, without hidden ones.

    Hidden files and those of other kinds are counted in `others` by suffix.
    """
    suffixes = image_suffixes()
    images: list[Path] = []
    # Sorted, for the order of images decides the digest of the data set and every random draw.
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            continue
        kind = _kind_of_file(path)
        if kind in suffixes:
            images.append(path)
        elif others is not None:
            others[kind] += 1
    return images


def _kind_of_file(path: Path) -> str:
    """Return the suffix of a file in lower case, or `hidden` or `no suffix`."""
    if path.name.startswith("."):
        return "hidden"
    return path.suffix.lower() or "no suffix"
