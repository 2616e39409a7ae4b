"""AffectNet in three layouts: lists with face boxes, `annotations/*_exp.npy`, folders 0 to 7."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from fertool.artifact.input_files import require_file
from fertool.data.data_format import ImageFolders
from fertool.data.folders import (
    Listing,
    SkippedFiles,
    find_file,
    has_numbered_folders,
    list_numbered_folders,
    skip_other_folders,
    split_folders,
)
from fertool.data.image_batches import ImageEntry, require_box
from fertool.data.image_files import image_files
from fertool.data.labels import AFFECTNET_ORDER, class_order
from fertool.data.text_files import read_text_lines, require_path_inside
from fertool.errors import FertoolError
from fertool.registry import READERS

_LISTS = {"train": "training.csv", "val": "validation.csv"}
_LIST_FOLDERS = (".", "Manually_Annotated_file_lists")
_IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")
_PATH_COLUMN = "subDirectory_filePath"
_NUMBER_COLUMNS = ("face_x", "face_y", "face_width", "face_height", "expression")
_UNLABELED = 3
"""Numbers after contempt: none, uncertain, no face."""
_LARGEST_ANNOTATION = 4096
"""Bytes of a file of one number; most of them are the header."""
_LARGEST_ITEM = 256
"""Bytes of one number or text."""
_COPY_AGAIN = "copy the list again"


@READERS.register("affectnet")
class AffectNet(ImageFolders):
    """AffectNet with its lists, its annotations, or folders 0 to 7."""

    detection_order = 2

    def has_layout(self, path: Path) -> bool:
        """Return whether there are lists or annotations."""
        return bool(find_lists(path)) or has_annotations(path)

    def may_have_layout(self, folder: Path, *, named: bool) -> bool:
        """Return whether there are numbered folders, which do not tell the data set."""
        return named and has_numbered_folders(folder)

    def list_images(self, folder: Path, skipped: SkippedFiles) -> tuple[tuple[str, ...], Listing]:
        """List the images with the seven or eight expressions."""
        return list_affectnet(folder, skipped)


def find_lists(root: Path) -> dict[str, Path]:
    """Return training.csv and validation.csv by split, as far as they exist."""
    found: dict[str, Path] = {}
    for split, name in _LISTS.items():
        for folder in _LIST_FOLDERS:
            path = find_file(root / folder, name)
            if path is not None:
                found[split] = path
    return found


def has_annotations(root: Path) -> bool:
    """Return whether any of the split folders has `images` and `annotations`."""
    for part in split_folders(root).values():
        has_images = (part / "images").is_dir()
        if has_images and (part / "annotations").is_dir():
            return True
    return False


def list_affectnet(
    root: Path, skipped: SkippedFiles | None = None
) -> tuple[tuple[str, ...], Listing]:
    """List AffectNet; the classes are eight, or seven when no image shows contempt.

    Rows without an expression (none, uncertain, no face) or with a face box of negative width are
    left out. Raises FertoolError naming the file, and the line of a list, that is damaged.
    """
    skipped = skipped or SkippedFiles()
    listing: Listing = {}
    if lists := find_lists(root):
        for split, path in lists.items():
            listing[split] = list(_from_list(root, path))
    elif has_annotations(root):
        parts = split_folders(root)
        for split, part in parts.items():
            listing[split] = list(_from_annotations(part, skipped))
        skip_other_folders(root, parts, skipped)
    else:
        listing = list_numbered_folders(
            root, AFFECTNET_ORDER, first=0, ignored=_UNLABELED, skipped=skipped
        )

    expressions: set[str] = set()
    for entries in listing.values():
        expressions |= {entry.label for entry in entries}
    # AffectNet-7 is the same release without contempt, the last of the eight.
    classes = AFFECTNET_ORDER if "contempt" in expressions else AFFECTNET_ORDER[:7]
    return class_order(classes), listing


def _from_list(root: Path, path: Path) -> Iterator[ImageEntry]:
    images = _image_folder(root)
    rows = csv.DictReader(read_text_lines(path))
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        _require_columns(path, rows.fieldnames)
        for row in rows:
            entry = _entry_of_row(images, row, f"{path}:{rows.line_num}")
            if entry is not None:
                yield entry
    except csv.Error as error:
        raise FertoolError(
            f"{path}:{rows.line_num + 1}: not a readable row ({error})", _COPY_AGAIN
        ) from None


def _image_folder(root: Path) -> Path:
    """Return the folder that the paths of the lists start from."""
    for folder in _IMAGE_FOLDERS:
        if (root / folder).is_dir():
            return root / folder
    return root


def _require_columns(path: Path, columns: Sequence[str]) -> None:
    missing = {_PATH_COLUMN, *_NUMBER_COLUMNS} - set(columns)
    if missing:
        raise FertoolError(
            f"{path}:1: no column {', '.join(sorted(missing))}",
            "use training.csv and validation.csv as released",
        )


def _entry_of_row(images: Path, row: dict[str, str], where: str) -> ImageEntry | None:
    """Return the image of a row, None where it shows no expression or no face."""
    try:
        x, y, width, height, expression = (int(float(row[name])) for name in _NUMBER_COLUMNS)
    except (TypeError, ValueError, OverflowError):
        raise FertoolError(
            f"{where}: face box and expression must be numbers", _COPY_AGAIN
        ) from None
    is_labeled = 0 <= expression < len(AFFECTNET_ORDER)
    # Some rows have a face box of negative width.
    if width <= 0 or height <= 0 or not is_labeled:
        return None
    box = (x, y, x + width, y + height)
    require_box(box, where, _COPY_AGAIN)
    path = row[_PATH_COLUMN]
    require_path_inside(path or "", where)
    return ImageEntry(images / path, AFFECTNET_ORDER[expression], box)


def _from_annotations(part: Path, skipped: SkippedFiles) -> Iterator[ImageEntry]:
    for image in image_files(part / "images", skipped.not_images):
        path = part / "annotations" / f"{image.stem}_exp.npy"
        try:
            expression = int(_read_number(path))
        # NumPy's header parser fails on damaged bytes with errors of a dozen types.
        except Exception:
            raise FertoolError(
                f"{path}: no readable expression for {image.name}", "copy the data set again"
            ) from None
        if 0 <= expression < len(AFFECTNET_ORDER):
            yield ImageEntry(image, AFFECTNET_ORDER[expression])


def _read_number(path: Path) -> Any:
    """Return the only number or text of an .npy file; raises errors of any type."""
    require_file(path)
    with open(path, "rb") as opened:
        file = io.BytesIO(opened.read(_LARGEST_ANNOTATION))
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    else:
        shape, _, dtype = np.lib.format.read_array_header_2_0(file)
    # Before NumPy allocates what a damaged header declares.
    if math.prod(shape) != 1 or dtype.itemsize > _LARGEST_ITEM:
        raise ValueError("not one number")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False).item()
