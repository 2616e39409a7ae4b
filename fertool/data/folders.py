"""Folders named after expressions: `train|val|test/<class>/` as on Kaggle, or `<class>/` alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fertool.data.faces import SPLITS
from fertool.data.images import Entry, image_files
from fertool.data.labels import canonical_expression, find_expression, in_canonical_order
from fertool.errors import FertoolError

Listing = dict[str, list[Entry]]

_SPLIT_NAMES = {
    "train": "train training",
    "val": "val valid validate validation dev devel development eval evaluation publictest",
    "test": "test testing privatetest",
}
_SPLIT_OF_NAME = {name: split for split, names in _SPLIT_NAMES.items() for name in names.split()}
_ENDINGS = ("set", "data", "images", "folder", "split")
_BESIDE = re.compile(
    r"(fer|ferplus|fer\+|rafdb|affectnet|ck|ck\+|ckplus|expw|data|dataset)?((19|20)[0-9]{2})?(plus|\+)?"
)
"""What stands before or after a split in the names of folders: a data set, a year."""
_MOST_WRAPPERS = 8


@dataclass
class Skipped:
    """What a listing passes over: files that are no images by suffix, and the images of folders that are no class.

    `folders` counts by the place within the root; "*" at the end of a place stands for the files directly there.
    """

    not_images: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)


def split_of(name: str) -> str | None:
    """Return the split that a folder's name stands for, whatever its case and separators; None for no split."""
    plain = re.sub(r"[-_. ]+", "", name).lower()
    for ending in ("", *_ENDINGS):
        split = _split_of_word(plain.removesuffix(ending))
        if split is not None:
            return split
    return None


def _split_of_word(word: str) -> str | None:
    if word in _SPLIT_OF_NAME:
        return _SPLIT_OF_NAME[word]
    for usual, split in _SPLIT_OF_NAME.items():
        before, found, after = word.partition(usual)
        if found and _BESIDE.fullmatch(before) and _BESIDE.fullmatch(after):
            return split
    return None


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a root that are named after a split, by split.

    Raises FertoolError for two folders that mean the same split.
    """
    found: dict[str, Path] = {}
    for folder in subfolders(root):
        split = split_of(folder.name)
        if split in found:
            raise FertoolError(
                f"{root}: both {found[split].name} and {folder.name} mean the split '{split}'",
                f"keep one folder for {split}: merge them, or move one elsewhere",
            )
        if split is not None:
            found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def subfolders(root: Path) -> list[Path]:
    """Return the visible folders inside a folder, sorted by name."""
    return sorted(p for p in root.iterdir() if not p.name.startswith((".", "__")) and p.is_dir())


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder, else one whose name differs in upper and lower case only."""
    if (folder / name).is_file():
        return folder / name
    if not folder.is_dir():
        return None
    return next(
        (p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower() and p.is_file()),
        None,
    )


def unwrapped(root: Path) -> Iterator[Path]:
    """Yield a folder, then the only folder inside it, then the only one inside that: archives wrap what they hold."""
    for _ in range(_MOST_WRAPPERS):
        yield root
        inside = subfolders(root)
        if len(inside) != 1:
            return
        root = inside[0]


def is_class_tree(root: Path) -> bool:
    """Say whether a folder, or its split folders, hold folders named after expressions."""
    parts = split_folders(root).values()
    return any(_has_classes(_class_root(part)) for part in parts) if parts else _has_classes(root)


def has_numbered_folders(root: Path) -> bool:
    """Say whether a folder, or its split folders, hold folders named by numbers."""
    parts = split_folders(root).values() or [root]
    return any(folder.name.isdecimal() for part in parts for folder in subfolders(part))


def list_class_folders(
    root: Path, skipped: Skipped | None = None
) -> tuple[tuple[str, ...], Listing]:
    """List `train|val|test/<class>/**`, or `<class>/**` as train; classes are all whose folder exists in any split.

    Without split folders, `<class>/train|val|test/**` is read too. What is passed over is counted in `skipped`.
    Raises FertoolError for a folder whose name is no expression.
    """
    skipped = skipped or Skipped()
    parts = split_folders(root)
    listing: Listing = {}
    seen: set[str] = set()
    for split, part in (parts or {"train": root}).items():
        listing.setdefault(split, [])
        class_root = _class_root(part) if parts else root
        _skip_loose_files(root, class_root, skipped)
        for folder in subfolders(class_root):
            expression = canonical_expression(folder.name, str(folder))
            seen.add(expression)
            for path in walk_images(folder, skipped):
                inner = None if parts else split_of(path.relative_to(folder).parts[0])
                listing.setdefault(inner or split, []).append(Entry(path, expression))
    skip_other_folders(root, parts, skipped)
    return in_canonical_order(seen), listing


def list_numbered_folders(
    root: Path, order: Sequence[str], first: int, ignored: int = 0, skipped: Skipped | None = None
) -> Listing:
    """List `train|val|test/<number>/**` where number `first` means `order[0]`; `ignored` more numbers are skipped.

    What is passed over is counted in `skipped`. Raises FertoolError for a folder that is not such a number.
    """
    skipped = skipped or Skipped()
    parts = split_folders(root)
    listing: Listing = {}
    last = first + len(order) - 1
    for split, part in (parts or {"train": root}).items():
        listing[split] = []
        _skip_loose_files(root, part, skipped)
        for folder in subfolders(part):
            number = int(folder.name) if re.fullmatch("[0-9]{1,4}", folder.name) else -1
            if not first <= number <= last + ignored:
                raise FertoolError(
                    f"{folder}: not a class folder", f"they are named {first} to {last}"
                )
            if number <= last:
                listing[split] += [
                    Entry(path, order[number - first]) for path in walk_images(folder, skipped)
                ]
    skip_other_folders(root, parts, skipped)
    return listing


def walk_images(folder: Path, skipped: Skipped) -> list[Path]:
    """Return the image files at any depth inside a folder, sorted by place; other files are counted in `skipped`.

    A folder that links lead to more than once is entered once.
    """
    images: list[Path] = []
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        state = folder.stat()
        if (state.st_dev, state.st_ino) in entered:
            continue
        entered.add((state.st_dev, state.st_ino))
        waiting += subfolders(folder)
        images += image_files(folder, skipped.not_images)
    return sorted(images)


def skip_other_folders(root: Path, parts: dict[str, Path], skipped: Skipped) -> None:
    """Count in `skipped` the images of each folder that lies beside the split folders `parts`, and loose ones."""
    if not parts:
        return
    _skip_loose_files(root, root, skipped)
    for folder in subfolders(root):
        if folder not in parts.values():
            skipped.folders[folder.name] += len(walk_images(folder, Skipped()))


def _skip_loose_files(root: Path, folder: Path, skipped: Skipped) -> None:
    """Count in `skipped` the files directly inside a folder where classes or splits are expected."""
    images = image_files(folder, skipped.not_images)
    if images:
        skipped.folders[(folder.relative_to(root) / "*").as_posix()] += len(images)


def _class_root(part: Path) -> Path:
    """Return the folder whose subfolders are the classes: `part`, or the first below its wrappers that has some."""
    return next((folder for folder in unwrapped(part) if _has_classes(folder)), part)


def _has_classes(folder: Path) -> bool:
    return any(find_expression(inside.name) for inside in subfolders(folder))
