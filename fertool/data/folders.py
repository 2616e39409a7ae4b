"""Folders named after classes: `train|val|test/<class>/` as on Kaggle, or `<class>/` alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fertool.data.image_batches import ImageEntry
from fertool.data.image_files import image_files
from fertool.data.labels import class_order, find_expression, name_classes
from fertool.data.reader import SPLITS
from fertool.data.split_names import split_of
from fertool.errors import FertoolError

Listing = dict[str, list[ImageEntry]]

_MOST_WRAPPERS = 8


@dataclass
class SkippedFiles:
    """What a listing skips: files that are not images, and images outside of class folders.

    `not_images` counts files by suffix, `folders` images by the path within the root; "*" at the
    end of a path stands for the files directly there.
    """

    not_images: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)


def split_folders(root: Path) -> dict[str, Path]:
    """Return the folders of a root that are named after a split, by split.

    Raises FertoolError for two folders that mean the same split.
    """
    found: dict[str, Path] = {}
    for folder in subfolders(root):
        split = split_of(folder.name)
        if split is None:
            continue
        if split in found:
            raise FertoolError(
                f"{root}: both {found[split].name} and {folder.name} mean the split '{split}'",
                f"keep one folder for {split}: merge them, or move one elsewhere",
            )
        found[split] = folder
    return {split: found[split] for split in SPLITS if split in found}


def subfolders(root: Path) -> list[Path]:
    """Return the visible folders inside a folder, sorted by name."""
    folders: list[Path] = []
    for path in sorted(root.iterdir()):
        # "__MACOSX" and the like are put beside the data by programs that pack archives.
        is_hidden = path.name.startswith((".", "__"))
        if path.is_dir() and not is_hidden:
            folders.append(path)
    return folders


def find_file(folder: Path, name: str) -> Path | None:
    """Return the file of this name in a folder, else one whose name differs in case only."""
    if (folder / name).is_file():
        return folder / name
    if not folder.is_dir():
        return None
    for path in sorted(folder.iterdir()):
        if path.name.lower() == name.lower() and path.is_file():
            return path
    return None


def unwrap_folders(root: Path) -> Iterator[Path]:
    """Yield a folder, then the only folder inside it, and so on: archives wrap what they hold."""
    for _ in range(_MOST_WRAPPERS):
        yield root
        inside = subfolders(root)
        if len(inside) != 1:
            return
        root = inside[0]


def is_expression_tree(root: Path) -> bool:
    """Return whether a folder, or any of its split folders, has folders named after expressions."""
    parts = split_folders(root)
    if not parts:
        return _has_expressions(root)
    return any(_has_expressions(class_root) for class_root in _class_roots(parts).values())


def has_class_folders(root: Path) -> bool:
    """Return whether a folder has split folders with folders of images, or two of these itself."""
    parts = split_folders(root)
    if not parts:
        with_images = (folder for folder in subfolders(root) if has_images(folder))
        # One alone is a wrapper, or the only class: nothing to tell apart.
        return next(with_images, None) is not None and next(with_images, None) is not None
    for class_root in _class_roots(parts).values():
        if any(has_images(folder) for folder in subfolders(class_root)):
            return True
    return False


def has_numbered_folders(root: Path) -> bool:
    """Return whether a folder, or any of its split folders, has folders named by numbers."""
    for part in split_folders(root).values() or [root]:
        if any(folder.name.isdecimal() for folder in subfolders(part)):
            return True
    return False


def list_class_folders(
    root: Path, skipped: SkippedFiles | None = None
) -> tuple[tuple[str, ...], Listing]:
    """List `train|val|test/<class>/**`, or `<class>/**` as train.

    The classes are all whose folder exists in any split. Without split folders,
    `<class>/train|val|test/**` is read too. `skipped` counts what is skipped. Raises FertoolError
    for a folder whose name cannot be that of a class.
    """
    skipped = skipped or SkippedFiles()
    parts = split_folders(root)
    class_roots = _class_roots(parts) if parts else {"train": root}
    folders_of_split: dict[str, list[Path]] = {}
    found: dict[str, str] = {}
    for split, class_root in class_roots.items():
        _skip_loose_files(root, class_root, skipped)
        folders_of_split[split] = subfolders(class_root)
        for folder in folders_of_split[split]:
            found.setdefault(folder.name, str(folder))

    label_of = name_classes(found)
    listing: Listing = {}
    for split, folders in folders_of_split.items():
        listing.setdefault(split, [])
        for folder in folders:
            for path in walk_images(folder, skipped):
                inner_split = None if parts else _inner_split(path.relative_to(folder))
                entry = ImageEntry(path, label_of[folder.name])
                listing.setdefault(inner_split or split, []).append(entry)
    skip_other_folders(root, parts, skipped)
    return class_order(label_of.values()), listing


def _inner_split(path: Path) -> str | None:
    """Return the split that the first folder of a path inside a class folder stands for, if any."""
    return split_of(path.parts[0]) if len(path.parts) > 1 else None


def list_numbered_folders(
    root: Path,
    order: Sequence[str],
    first: int,
    ignored: int = 0,
    skipped: SkippedFiles | None = None,
) -> Listing:
    """List `train|val|test/<number>/**` where number `first` means `order[0]`.

    The images of the next `ignored` numbers are left out. `skipped` counts what is skipped. Raises
    FertoolError for a folder that is not such a number.
    """
    skipped = skipped or SkippedFiles()
    parts = split_folders(root)
    listing: Listing = {}
    # A folder without splits is all training data; validation images are held out of it later.
    for split, part in (parts or {"train": root}).items():
        listing[split] = []
        _skip_loose_files(root, part, skipped)
        for folder in subfolders(part):
            index = _class_index(folder, count=len(order), first=first, ignored=ignored)
            if index < len(order):
                for path in walk_images(folder, skipped):
                    listing[split].append(ImageEntry(path, order[index]))
    skip_other_folders(root, parts, skipped)
    return listing


def _class_index(folder: Path, count: int, first: int, ignored: int) -> int:
    """Return the class index of a numbered folder, `count` or more for one to be ignored.

    Raises FertoolError for another name.
    """
    # Few digits: Python refuses to convert thousands of them.
    if re.fullmatch("[0-9]{1,4}", folder.name):
        index = int(folder.name) - first
        if 0 <= index < count + ignored:
            return index
    raise FertoolError(
        f"{folder}: not a class folder", f"they are named {first} to {first + count - 1}"
    )


def walk_images(folder: Path, skipped: SkippedFiles) -> list[Path]:
    """Return the image files at any depth inside a folder, sorted by path.

    Other files are counted in `skipped`.
    """
    images: list[Path] = []
    for inside in _walk_folders(folder):
        images += image_files(inside, skipped.not_images)
    return sorted(images)


def has_images(folder: Path) -> bool:
    """Return whether there is an image file at any depth inside a folder."""
    return any(image_files(inside) for inside in _walk_folders(folder))


def _walk_folders(folder: Path) -> Iterator[Path]:
    """Yield a folder and the visible ones at any depth inside, each once."""
    entered: set[tuple[int, int]] = set()
    waiting = [folder]
    while waiting:
        folder = waiting.pop()
        state = folder.stat()
        identity = (state.st_dev, state.st_ino)
        # Links may lead to a folder more than once, or back to one above.
        if identity in entered:
            continue
        entered.add(identity)
        waiting += subfolders(folder)
        yield folder


def skip_other_folders(root: Path, parts: dict[str, Path], skipped: SkippedFiles) -> None:
    """Count in `skipped` the images beside the split folders `parts`, by folder."""
    if not parts:
        return
    _skip_loose_files(root, root, skipped)
    for folder in subfolders(root):
        if folder not in parts.values():
            skipped.folders[folder.name] += len(walk_images(folder, SkippedFiles()))


def _skip_loose_files(root: Path, folder: Path, skipped: SkippedFiles) -> None:
    """Count in `skipped` the files directly in a folder where classes or splits are expected."""
    images = image_files(folder, skipped.not_images)
    if images:
        path = folder.relative_to(root) / "*"
        skipped.folders[path.as_posix()] += len(images)


def _class_roots(parts: dict[str, Path]) -> dict[str, Path]:
    """Return the folder inside each split folder whose subfolders are classes.

    It is the first within wrappers that has folders named after expressions, else the first with
    several folders, else the last with any. A lone folder that is a class in another split is no
    wrapper.
    """
    roots: dict[str, Path] = {}
    lone: dict[str, list[Path]] = {}
    known: set[str] = set()
    for split, part in parts.items():
        wrappers = list(unwrap_folders(part))
        roots[split] = part
        for folder in wrappers:
            names = {inside.name for inside in subfolders(folder)}
            if len(names) > 1 or _has_expressions(folder):
                roots[split] = folder
                known |= names
                break
        else:
            lone[split] = wrappers

    for split, wrappers in lone.items():
        for folder in wrappers:
            inside = subfolders(folder)
            if not inside:
                break
            roots[split] = folder
            if inside[0].name in known or image_files(inside[0]):
                break
    return roots


def _has_expressions(folder: Path) -> bool:
    return any(find_expression(inside.name) for inside in subfolders(folder))
