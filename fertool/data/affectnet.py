"""AffectNet in its three layouts: lists with face boxes, `annotations/*_exp.npy`, or folders 0 to 7."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from fertool.data.folders import Listing, list_numbered_folders, split_folders
from fertool.data.images import Entry, image_files
from fertool.data.labels import AFFECTNET_ORDER, in_canonical_order
from fertool.errors import FertoolError

_LISTS = {"train": "training.csv", "val": "validation.csv"}
_LIST_FOLDERS = (".", "Manually_Annotated_file_lists")
_IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")
_COLUMNS = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "expression")
_UNLABELLED = 3
"""Numbers after contempt: none, uncertain, no face."""


def find_lists(root: Path) -> dict[str, Path]:
    """Return training.csv and validation.csv by split, as far as they exist."""
    candidates = ((split, root / folder / name) for split, name in _LISTS.items() for folder in _LIST_FOLDERS)
    return {split: path for split, path in candidates if path.is_file()}


def has_annotations(root: Path) -> bool:
    """Say whether the split folders hold `images` and `annotations`."""
    return any((part / "annotations").is_dir() and (part / "images").is_dir() for part in split_folders(root).values())


def list_affectnet(root: Path) -> tuple[tuple[str, ...], Listing]:
    """List AffectNet; the classes are eight, or seven when nothing shows contempt.

    Rows without an expression (none, uncertain, no face) or with a face box of negative width are left out.
    Raises FertoolError naming the file, and the line of a list, that is not as it should be.
    """
    if lists := find_lists(root):
        listing = {split: list(_from_list(root, path)) for split, path in lists.items()}
    elif has_annotations(root):
        listing = {split: list(_from_annotations(part)) for split, part in split_folders(root).items()}
    else:
        listing = list_numbered_folders(root, AFFECTNET_ORDER, first=0, ignored=_UNLABELLED)
    contempt = any(entry.expression == "contempt" for entries in listing.values() for entry in entries)
    return in_canonical_order(frozenset(AFFECTNET_ORDER if contempt else AFFECTNET_ORDER[:7])), listing


def _from_list(root: Path, path: Path) -> Iterator[Entry]:
    images = next((root / folder for folder in _IMAGE_FOLDERS if (root / folder).is_dir()), root)
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        rows = csv.DictReader(file)
        missing = set(_COLUMNS) - set(rows.fieldnames or ())
        if missing:
            raise FertoolError(
                f"{path}:1: no column {', '.join(sorted(missing))}", "use training.csv and validation.csv as released"
            )
        for row in rows:
            try:
                x, y, width, height, expression = (int(float(row[name])) for name in _COLUMNS[1:])
            except (TypeError, ValueError, OverflowError):
                raise FertoolError(
                    f"{path}:{rows.line_num}: face box and expression must be numbers", "copy the list again"
                ) from None
            if width > 0 and height > 0 and 0 <= expression < len(AFFECTNET_ORDER):
                place = images / row["subDirectory_filePath"]
                yield Entry(place, AFFECTNET_ORDER[expression], (x, y, x + width, y + height))


def _from_annotations(part: Path) -> Iterator[Entry]:
    for image in image_files(part / "images"):
        path = part / "annotations" / f"{image.stem}_exp.npy"
        try:
            expression = int(np.load(path, allow_pickle=False).item())
        except (OSError, ValueError, TypeError, EOFError, OverflowError):
            raise FertoolError(f"{path}: no readable expression for {image.name}", "copy the data set again") from None
        if 0 <= expression < len(AFFECTNET_ORDER):
            yield Entry(image, AFFECTNET_ORDER[expression])
