"""AffectNet in its three layouts: lists with face boxes, `annotations/*_exp.npy`, or folders 0 to 7."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from fertool.artifact.header import require_file
from fertool.data.decoding import LARGEST_PIXELS
from fertool.data.folders import (
    Listing,
    Skipped,
    find_file,
    list_numbered_folders,
    skip_other_folders,
    split_folders,
)
from fertool.data.images import Box, Entry, image_files
from fertool.data.labels import AFFECTNET_ORDER, in_canonical_order
from fertool.data.lines import read_text_lines, require_path_inside
from fertool.errors import FertoolError

_LISTS = {"train": "training.csv", "val": "validation.csv"}
_LIST_FOLDERS = (".", "Manually_Annotated_file_lists")
_IMAGE_FOLDERS = ("Manually_Annotated_Images", "Manually_Annotated/Manually_Annotated_Images", ".")
_COLUMNS = ("subDirectory_filePath", "face_x", "face_y", "face_width", "face_height", "expression")
_UNLABELLED = 3
"""Numbers after contempt: none, uncertain, no face."""
_FARTHEST = 1 << 16
"""Pixels: no photo has a face farther from its corner."""
_LARGEST_ANNOTATION = 4096
"""Bytes of a file of one number; most of them are the header."""
_LARGEST_ITEM = 256
_COPY_AGAIN = "copy the list again"


def find_lists(root: Path) -> dict[str, Path]:
    """Return training.csv and validation.csv by split, as far as they exist."""
    found: dict[str, Path] = {}
    for folder in _LIST_FOLDERS:
        for split, name in _LISTS.items():
            path = find_file(root / folder, name)
            if path is not None:
                found[split] = path
    return {split: found[split] for split in _LISTS if split in found}


def has_annotations(root: Path) -> bool:
    """Say whether the split folders hold `images` and `annotations`."""
    return any(
        (part / "annotations").is_dir() and (part / "images").is_dir()
        for part in split_folders(root).values()
    )


def list_affectnet(root: Path, skipped: Skipped | None = None) -> tuple[tuple[str, ...], Listing]:
    """List AffectNet; the classes are eight, or seven when nothing shows contempt.

    Rows without an expression (none, uncertain, no face) or with a face box of negative width are left out.
    Raises FertoolError naming the file, and the line of a list, that is not as it should be.
    """
    skipped = skipped or Skipped()
    if lists := find_lists(root):
        listing = {split: list(_from_list(root, path)) for split, path in lists.items()}
    elif has_annotations(root):
        parts = split_folders(root)
        listing = {split: list(_from_annotations(part, skipped)) for split, part in parts.items()}
        skip_other_folders(root, parts, skipped)
    else:
        listing = list_numbered_folders(
            root, AFFECTNET_ORDER, first=0, ignored=_UNLABELLED, skipped=skipped
        )
    contempt = any(
        entry.expression == "contempt" for entries in listing.values() for entry in entries
    )
    return in_canonical_order(
        frozenset(AFFECTNET_ORDER if contempt else AFFECTNET_ORDER[:7])
    ), listing


def _from_list(root: Path, path: Path) -> Iterator[Entry]:
    images = next((root / folder for folder in _IMAGE_FOLDERS if (root / folder).is_dir()), root)
    rows = csv.DictReader(read_text_lines(path))
    try:
        rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
        missing = set(_COLUMNS) - set(rows.fieldnames)
        if missing:
            raise FertoolError(
                f"{path}:1: no column {', '.join(sorted(missing))}",
                "use training.csv and validation.csv as released",
            )
        for row in rows:
            entry = _entry_of_row(images, row, f"{path}:{rows.line_num}")
            if entry is not None:
                yield entry
    except csv.Error as error:
        raise FertoolError(
            f"{path}:{rows.line_num + 1}: not a readable row ({error})", _COPY_AGAIN
        ) from None


def _entry_of_row(images: Path, row: dict[str, str], where: str) -> Entry | None:
    """Return the image of a row, None where it shows no expression or no face."""
    try:
        x, y, width, height, expression = (int(float(row[name])) for name in _COLUMNS[1:])
    except (TypeError, ValueError, OverflowError):
        raise FertoolError(
            f"{where}: face box and expression must be numbers", _COPY_AGAIN
        ) from None
    if width <= 0 or height <= 0 or not 0 <= expression < len(AFFECTNET_ORDER):
        return None
    box = (x, y, x + width, y + height)
    _require_box(box, where)
    require_path_inside(row[_COLUMNS[0]] or "", where)
    return Entry(images / row[_COLUMNS[0]], AFFECTNET_ORDER[expression], box)


def _require_box(box: Box, where: str) -> None:
    """Raise FertoolError for a face box that no photo has."""
    left, top, right, bottom = box
    is_far = max(abs(edge) for edge in box) > _FARTHEST
    if is_far or (right - left) * (bottom - top) > LARGEST_PIXELS:
        raise FertoolError(
            f"{where}: a face box from {left},{top} to {right},{bottom} lies in no photo",
            _COPY_AGAIN,
        )


def _from_annotations(part: Path, skipped: Skipped) -> Iterator[Entry]:
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
            yield Entry(image, AFFECTNET_ORDER[expression])


def _read_number(path: Path) -> Any:
    """Return the one number or text of an .npy file, without making room for more; raises errors of any type."""
    require_file(path)
    with open(path, "rb") as opened:
        file = io.BytesIO(opened.read(_LARGEST_ANNOTATION))
    version = np.lib.format.read_magic(file)
    read_header = (
        np.lib.format.read_array_header_1_0
        if version == (1, 0)
        else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = read_header(file)
    if math.prod(shape) != 1 or dtype.itemsize > _LARGEST_ITEM:
        raise ValueError("not one number")
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False).item()
