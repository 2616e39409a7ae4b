"""Folders named after expressions: `train|val|test/<class>/` as on Kaggle, or `<class>/` alone."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from fertool.data.image_tree import ImageEntry, image_files
from fertool.data.labels import canonical_expression, find_expression, in_canonical_order
from fertool.data.reader import SPLITS
from fertool.errors import FertoolError

Listing = dict[str, list[ImageEntry]]

_SPLIT_OF_NAME = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "dev": "val",
    "devel": "val",
    "development": "val",
    "eval": "val",
    "evaluation": "val",
    "publictest": "val",
    "test": "test",
    "testing": "test",
    "privatetest": "test",
}
_ENDINGS = ("set", "data", "images", "folder", "split")
_DATASET_AND_YEAR = re.compile(
    r"(fer|ferplus|fer\+|rafdb|affectnet|ck|ck\+|ckplus|expw|data|dataset)?"
    r"((19|20)[0-9]{2})?(plus|\+)?"
)
"""What precedes or follows a split in the names of folders: a data set, a year."""
_MOST_WRAPPERS = 8


@dataclass
class SkippedFiles:
    """What a listing skips: files that are not images, and images outside of class folders.

    `not_images` counts files by suffix, `folders` images by the path within the root; "*" at the
    end of a path stands for the files directly there.
    """

    not_images: Counter[str] = field(default_factory=Counter)
    folders: Counter[str] = field(default_factory=Counter)


def split_of(name: str) -> str | None:
    """Return the split that a folder's name stands for; None for no split.

    Case and separators do not matter.
    """
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
        # Nothing else may stand beside it: "contest" and "evalentine" name no split.
        beside_is_known = _DATASET_AND_YEAR.fullmatch(before) and _DATASET_AND_YEAR.fullmatch(after)
        if found and beside_is_known:
            return split
    return None


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


def is_class_tree(root: Path) -> bool:
    """Return whether a folder, or any of its split folders, has folders named after expressions."""
    parts = split_folders(root)
    if not parts:
        return _has_classes(root)
    return any(_has_classes(_class_root(part)) for part in parts.values())


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
    for a folder whose name is no expression.
    """
    skipped = skipped or SkippedFiles()
    parts = split_folders(root)
    listing: Listing = {}
    classes: set[str] = set()
    for split, part in (parts or {"train": root}).items():
        listing.setdefault(split, [])
        class_root = _class_root(part) if parts else root
        _skip_loose_files(root, class_root, skipped)
        for folder in subfolders(class_root):
            expression = canonical_expression(folder.name, str(folder))
            classes.add(expression)
            for path in walk_images(folder, skipped):
                inner_split = None if parts else split_of(path.relative_to(folder).parts[0])
                entries = listing.setdefault(inner_split or split, [])
                entries.append(ImageEntry(path, expression))
    skip_other_folders(root, parts, skipped)
    return in_canonical_order(classes), listing


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
        images += image_files(folder, skipped.not_images)
    return sorted(images)


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


def _class_root(part: Path) -> Path:
    """Return the folder whose subfolders are classes: the first within wrappers, else `part`."""
    for folder in unwrap_folders(part):
        if _has_classes(folder):
            return folder
    return part


def _has_classes(folder: Path) -> bool:
    return any(find_expression(inside.name) for inside in subfolders(folder))
