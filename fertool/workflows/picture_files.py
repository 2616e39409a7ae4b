"""Pictures that are written: their names in a folder, and their formats."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image


class OutputFolder:
    """Paths in a folder of outputs: unique, and none of them an input."""

    def __init__(self, folder: Path, inputs: Iterable[Path]) -> None:
        self._folder = folder
        self._taken = {path.resolve() for path in inputs}

    def unused(self, place: PurePath) -> Path:
        """Return the path for a file at a place in the folder, numbered where it is taken."""
        path = self._folder / place
        number = 2
        while path.resolve() in self._taken:
            path = self._folder / place.with_name(f"{place.stem}-{number}{place.suffix}")
            number += 1
        self._taken.add(path.resolve())
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def save_picture(image: Image.Image, path: Path) -> None:
    """Write a picture, atomically, in the format of its suffix."""
    from fertool.artifact.atomic import write_atomic

    content = io.BytesIO()
    if path.suffix.lower() == ".png":
        image.save(content, "PNG")
    else:
        image.save(content, "JPEG", quality=92)
    write_atomic(path, content.getvalue())
