"""Detect the format of a source on disk, and the folder inside of wrappers that has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from fertool.data import affectnet, fer2013, folders, rafdb
from fertool.errors import FertoolError

_SHOWN_FOLDERS = 5
"""Names of folders that an error lists."""


def detect_layout(path: Path) -> tuple[str, Path]:
    """Return the format of a source, and the file or folder that has it, maybe inside of wrappers.

    Raises FertoolError for an unknown layout, naming a few of its folders.
    """
    if path.is_file() and fer2013.is_fer2013(path):
        return "fer2013", path
    if path.is_dir():
        for folder in folders.unwrap_folders(path):
            format = _format_of_folder(folder)
            if format is not None:
                return format, folder
    raise FertoolError(
        f"{path}: not a layout that fertool knows{_describe_folders(path)}",
        "known: fer2013.csv, train|test/<expression>/, RAF-DB, AffectNet; "
        "numbered class folders need ``format``",
    )


def find_layout(path: Path, format: str) -> Path:
    """Return the folder of a given format, maybe inside of wrappers; else the path itself."""
    if not path.is_dir() or format not in _LAYOUTS:
        return path
    for folder in folders.unwrap_folders(path):
        if _LAYOUTS[format](folder):
            return folder
        # Numbered folders do not tell one data set from another, so detection leaves them out.
        if format in ("raf-db", "affectnet") and folders.has_numbered_folders(folder):
            return folder
    return path


def find_fer2013_csv(folder: Path) -> Path | None:
    """Return the fer2013 CSV of a usual name in a folder, if there is one."""
    for name in ("fer2013.csv", "icml_face_data.csv"):
        path = folders.find_file(folder, name)
        if path is not None:
            return path
    return None


def _has_rafdb(folder: Path) -> bool:
    return rafdb.find_label_list(folder) is not None


def _has_affectnet(folder: Path) -> bool:
    return bool(affectnet.find_lists(folder)) or affectnet.has_annotations(folder)


def _has_fer2013(folder: Path) -> bool:
    return find_fer2013_csv(folder) is not None


# In the order in which they are tried: lists of labels are surer signs than names of folders.
_LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "raf-db": _has_rafdb,
    "affectnet": _has_affectnet,
    "folders": folders.is_class_tree,
    "fer2013": _has_fer2013,
}
"""The test of a folder for each format."""


def _format_of_folder(folder: Path) -> str | None:
    for format, has_layout in _LAYOUTS.items():
        if has_layout(folder):
            return format
    if folders.split_folders(folder) and not folders.has_numbered_folders(folder):
        # Splits of unknown classes: the listing raises the error that names the folder.
        return "folders"
    return None


def _describe_folders(path: Path) -> str:
    """Return the names of a few folders of an unknown layout, as the end of an error."""
    if not path.is_dir():
        return ""
    parts = folders.split_folders(path)
    parent = next(iter(parts.values()), path)
    names = [folder.name for folder in folders.subfolders(parent)]
    if not names:
        return ""
    shown = ", ".join(names[:_SHOWN_FOLDERS])
    if len(names) > _SHOWN_FOLDERS:
        shown += ", …"
    whose = f"the folders of {parent.name}" if parts else "its folders"
    return f": {whose} ({shown}) are neither splits nor expressions"
