"""Detect the format of a source on disk, and the folder inside of wrappers that has it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from fertool.data import folders
from fertool.data.data_format import DataFormat
from fertool.data.image_files import image_files
from fertool.errors import FertoolError, UsageError
from fertool.registry import READERS

_SHOWN_FOLDERS = 5
"""Names of folders that an error lists."""


def load_data_format(name: str) -> DataFormat:
    """Return the format of this name; raises UsageError with the choices for another name."""
    member: type[DataFormat] = READERS.load(name)
    return member()


def detect_layout(path: Path) -> tuple[str, Path]:
    """Return the format of a source, and the file or folder that has it, maybe inside of wrappers.

    Raises FertoolError for an unknown layout, naming the reason.
    """
    formats = _formats_in_order()
    for inside in folders.unwrap_folders(path) if path.is_dir() else [path]:
        name = _format_of(inside, formats)
        if name is not None:
            return name, inside
    known = [f"{name} ({READERS.summary(name)})" for name, _ in formats]
    raise FertoolError(
        f"{path}: not a layout that fertool knows: {_why_unknown(path)}",
        f"known: {', '.join(known)}; numbered class folders need ``format``",
    )


def find_layout(path: Path, format: DataFormat) -> Path:
    """Return the folder of a given format, maybe inside of wrappers; else the path itself."""
    if not path.is_dir():
        return path
    for folder in folders.unwrap_folders(path):
        if format.has_layout(folder) or format.may_have_layout(folder, named=True):
            return folder
    return path


def _formats_in_order() -> list[tuple[str, DataFormat]]:
    """Return the formats that paths can have, in the order in which they are tried."""
    formats = []
    for name in READERS.names():
        try:
            format = load_data_format(name)
        except UsageError:
            # A package that does not load must not break the others.
            continue
        if not format.prefix:
            formats.append((name, format))
    return sorted(formats, key=lambda pair: pair[1].detection_order)


def _format_of(path: Path, formats: Iterable[tuple[str, DataFormat]]) -> str | None:
    is_folder = path.is_dir()
    possible = [pair for pair in formats if is_folder or not pair[1].is_folder]
    for name, format in possible:
        if format.has_layout(path):
            return name
    for name, format in possible:
        if is_folder and format.may_have_layout(path, named=False):
            return name
    return None


def _why_unknown(path: Path) -> str:
    """Return why no format has the layout of a file or folder, as the end of an error."""
    if not path.is_dir():
        return "its first lines are neither the header of fer2013.csv nor paths and labels"
    parts = folders.split_folders(path)
    parent = next(iter(parts.values()), path)
    inside = folders.subfolders(parent)
    with_images = [folder.name for folder in inside if folders.has_images(folder)]
    names = _a_few([folder.name for folder in inside])
    if not with_images:
        return _why_no_images(parent, names)
    if folders.has_numbered_folders(path):
        return (
            f"the folders of {parent} ({names}) are numbers, which stand for other classes in "
            "RAF-DB (from 1) than in AffectNet (from 0)"
        )
    return f"only one folder inside has images ({with_images[0]}), which is one class"


def _why_no_images(folder: Path, names: str) -> str:
    """Return why a folder whose subfolders, of these names, have no images holds no classes."""
    loose = len(image_files(folder))
    if loose:
        return (
            f"{loose:,} images lie directly in {folder}; there should be a folder for each class, "
            "or a list of paths and labels (labels.csv)"
        )
    if names:
        return f"there are no images in the folders of {folder} ({names})"
    return f"there are no images in {folder}"


def _a_few(names: list[str]) -> str:
    shown = ", ".join(names[:_SHOWN_FOLDERS])
    return f"{shown}, …" if len(names) > _SHOWN_FOLDERS else shown
