"""Folders named after expressions: `train|val|test/<class>/` as on Kaggle, or `<class>/` alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from fertool.data.faces import SPLITS
from fertool.data.images import Entry, image_files
from fertool.data.labels import canonical_expression, find_expression, in_canonical_order
from fertool.errors import FertoolError

Listing = dict[str, list[Entry]]

_SPLIT_FOLDERS = {
    "train": "train",
    "training": "train",
    "train_set": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "val_set": "val",
    "test": "test",
    "testing": "test",
}


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a root that are named after a split, by split."""
    found: dict[str, Path] = {}
    for folder in subfolders(root):
        split = _SPLIT_FOLDERS.get(folder.name.lower())
        if split in found:
            raise FertoolError(f"{root}: both {found[split].name} and {folder.name}", f"keep one folder for {split}")
        if split is not None:
            found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def subfolders(root: Path) -> list[Path]:
    """Return the visible folders inside a folder, sorted by name."""
    return sorted(p for p in root.iterdir() if p.is_dir() and not p.name.startswith((".", "__")))


def is_class_tree(root: Path) -> bool:
    """Say whether a folder, or its split folders, hold folders named after expressions."""
    roots = split_folders(root).values() or [root]
    return any(find_expression(folder.name) for part in roots for folder in subfolders(part))


def list_class_folders(root: Path) -> tuple[tuple[str, ...], Listing]:
    """List `train|val|test/<class>/*`, or `<class>/*` as train; classes are all whose folder exists in any split.

    Raises FertoolError for a folder whose name is no expression.
    """
    parts = split_folders(root) or {"train": root}
    listing: Listing = {}
    seen: set[str] = set()
    for split, part in parts.items():
        listing[split] = []
        for folder in subfolders(part):
            expression = canonical_expression(folder.name, str(folder))
            seen.add(expression)
            listing[split] += [Entry(path, expression) for path in image_files(folder)]
    return in_canonical_order(seen), listing


def list_numbered_folders(root: Path, order: Sequence[str], first: int, ignored: int = 0) -> Listing:
    """List `train|val|test/<number>/*` where number `first` means `order[0]`; `ignored` more numbers are skipped.

    Raises FertoolError for a folder that is not such a number.
    """
    listing: Listing = {}
    last = first + len(order) - 1
    for split, part in (split_folders(root) or {"train": root}).items():
        listing[split] = []
        for folder in subfolders(part):
            number = int(folder.name) if folder.name.isdecimal() else -1
            if not first <= number <= last + ignored:
                raise FertoolError(f"{folder}: not a class folder", f"they are named {first} to {last}")
            if number <= last:
                listing[split] += [Entry(path, order[number - first]) for path in image_files(folder)]
    return listing
