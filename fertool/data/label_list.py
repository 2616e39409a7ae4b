"""Lists of image files and their classes: `path,label[,split][,x,y,w,h]`, as people write them."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath, PureWindowsPath

from fertool.data.decoding import image_suffixes
from fertool.data.image_batches import Box, ImageEntry, require_box
from fertool.data.labels import class_order, name_classes
from fertool.data.split_names import split_of
from fertool.data.text_files import read_text_lines, require_path_inside
from fertool.errors import FertoolError

Row = tuple[int, list[str]]
"""The number of a line, and its fields."""

_DELIMITERS = ("\t", ";", "|", ",", " ")
"""In the order in which they are tried: spaces and commas also stand in names of files."""
_SNIFFED_LINES = 20
_LONGEST_SNIFFED = 4096
"""Characters of a line that can be one of a list."""
_FURTHER_COLUMNS = {
    2: (),
    3: ("split",),
    6: ("x", "y", "w", "h"),
    7: ("split", "x", "y", "w", "h"),
}
"""Columns after path and label in a list without a header, by the number of all of them."""
_SHOWN = 60
"""Characters of a wrong field that an error shows."""
_HINT = "a row is: path,label or path,label,split, then x,y,w,h in pixels for a box"

_NAMES = {
    "path": "path file filename filepath image imagefile imagename imagepath img imgname imgpath",
    "label": "label labels class classname emotion expression target category",
    "split": "split set usage subset partition phase",
    "x": "x left xmin x1 facex boxx",
    "y": "y top ymin y1 facey boxy",
    "w": "w width facewidth boxw boxwidth",
    "h": "h height faceheight boxh boxheight",
    "right": "right xmax x2",
    "bottom": "bottom ymax y2",
}
"""Names of columns in a header, in lower case and without separators."""


@dataclass(frozen=True)
class ListForm:
    """How a list is written: its delimiter, and the position of each column of `_NAMES`."""

    delimiter: str
    columns: Mapping[str, int]
    count: int
    has_header: bool

    @property
    def box(self) -> tuple[str, ...]:
        """The columns of the box: corner and size, two corners, or none."""
        for names in (("x", "y", "w", "h"), ("x", "y", "right", "bottom")):
            if all(name in self.columns for name in names):
                return names
        return ()


def find_list_form(path: Path) -> ListForm | None:
    """Return how a file lists images, by its first lines; None for a file that is no such list."""
    with open(path, "rb") as file:
        # Before the lines are decoded: a file of pixels or of no text at all has longer ones.
        start = file.read(_LONGEST_SNIFFED)
    if start.count(b"\0") > len(start) // 2 + 1:
        return None
    lines: list[str] = []
    for line in islice(read_text_lines(path), _SNIFFED_LINES):
        if len(line) > _LONGEST_SNIFFED:
            return None
        lines.append(line)
    for delimiter in _DELIMITERS:
        try:
            rows = [fields for _, fields in _split_rows(iter(lines), delimiter)]
        except csv.Error:
            continue
        form = _form_of_rows(rows, delimiter)
        if form is not None:
            return form
    return None


def list_labeled_images(path: Path) -> tuple[tuple[str, ...], dict[str, list[ImageEntry]]]:
    """Return the classes of a list and its images by split; without a split they are for training.

    Paths start from the list's folder. Raises FertoolError naming file and line of a malformed row.
    """
    form = find_list_form(path)
    if form is None:
        raise FertoolError(f"{path}: its first lines are not paths and labels", _HINT)
    rows: list[tuple[str, str, Path, Box | None]] = []
    found: dict[str, str] = {}
    for line, fields in _data_rows(path, form):
        where = f"{path}:{line}"
        if len(fields) != form.count:
            raise FertoolError(f"{where}: {len(fields)} fields, expected {form.count}", _HINT)
        label = fields[form.columns["label"]]
        found.setdefault(label, where)
        image = _image_path(path.parent, fields[form.columns["path"]], where)
        rows.append((_split(fields, form, where), label, image, _box(fields, form, where)))

    label_of = name_classes(found)
    listing: dict[str, list[ImageEntry]] = {}
    for split, label, image, box in rows:
        listing.setdefault(split, []).append(ImageEntry(image, label_of[label], box))
    return class_order(label_of.values()), listing


def _data_rows(path: Path, form: ListForm) -> Iterator[Row]:
    """Yield the rows of a list after its header."""
    rows = _split_rows(read_text_lines(path), form.delimiter)
    line = 0
    try:
        if form.has_header:
            next(rows, None)
        for line, fields in rows:
            # Spreadsheets write delimiters of empty columns behind the last one.
            while len(fields) > form.count and not fields[-1]:
                fields.pop()
            yield line, fields
    except csv.Error as error:
        raise FertoolError(f"{path}:{line + 1}: not a readable row ({error})", _HINT) from None


def _split_rows(lines: Iterator[str], delimiter: str) -> Iterator[Row]:
    """Yield the rows that are not blank; raises csv.Error."""
    if delimiter == " ":
        for number, line in enumerate(lines, start=1):
            # A name may contain spaces: the label is the last word.
            if line.strip():
                yield number, line.rsplit(maxsplit=1)
        return
    reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True)
    for row in reader:
        fields = [field.strip() for field in row]
        if any(fields):
            yield reader.line_num, fields


def _form_of_rows(rows: list[list[str]], delimiter: str) -> ListForm | None:
    """Return the form of a list with these first rows, None if they are not paths and labels."""
    if not rows:
        return None
    count = len(rows[0])
    columns = _header_columns(rows[0])
    if "path" in columns and "label" in columns:
        return ListForm(delimiter, columns, count, has_header=True)

    if count not in _FURTHER_COLUMNS:
        return None
    # Some people write the label first.
    names = ["path", "label"] if _is_image_path(rows[0][0]) else ["label", "path"]
    names += _FURTHER_COLUMNS[count]
    path = names.index("path")
    for row in rows:
        if len(row) != count or not _is_image_path(row[path]):
            return None
    columns = {name: position for position, name in enumerate(names)}
    return ListForm(delimiter, columns, count, has_header=False)


def _header_columns(header: list[str]) -> dict[str, int]:
    """Return the positions of the known columns; of two with one meaning the first counts."""
    columns: dict[str, int] = {}
    for position, title in enumerate(header):
        plain = re.sub(r"[^a-z0-9]+", "", title.lower())
        for name, spellings in _NAMES.items():
            if plain in spellings.split():
                columns.setdefault(name, position)
    return columns


def _is_image_path(text: str) -> bool:
    return PureWindowsPath(text).suffix.lower() in image_suffixes()


def _image_path(folder: Path, text: str, where: str) -> Path:
    """Return the path of an image, relative to a list's folder.

    Backslashes separate folders unless a file has them in its name. Of an absolute path counts what
    follows the name of the list's folder: a list moves with its images. Raises FertoolError for a
    path that leads out.
    """
    name = text
    if "\\" in text and not _is_file(folder / text):
        name = text.replace("\\", "/")
    if PureWindowsPath(name).anchor or PurePosixPath(name).anchor:
        parts = PurePosixPath(name).parts
        # The last one: a folder inside may have the same name.
        places = [i for i, part in enumerate(parts) if part == folder.resolve().name]
        if not places:
            raise FertoolError(
                f"{where}: '{text[:_SHOWN]}' is not inside {folder}, the folder of the list",
                "give paths that start from the list's folder",
            )
        name = "/".join(parts[places[-1] + 1 :])
    require_path_inside(name, where)
    return folder / name


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    # A name with a NUL, or too long.
    except (OSError, ValueError):
        return False


def _split(fields: list[str], form: ListForm, where: str) -> str:
    if "split" not in form.columns:
        return "train"
    text = fields[form.columns["split"]]
    split = split_of(text)
    if split is None:
        raise FertoolError(f"{where}: '{text[:_SHOWN]}' is not a split", "write train, val or test")
    return split


def _box(fields: list[str], form: ListForm, where: str) -> Box | None:
    """Return the box of a row, None where its fields are empty.

    Raises FertoolError for one that lies in no photo.
    """
    texts = [fields[form.columns[name]] for name in form.box]
    if not any(texts):
        return None
    try:
        # A decimal comma, as spreadsheets write in many countries.
        numbers = [float(text.replace(",", ".")) for text in texts]
        left, top, third, fourth = (round(number) for number in numbers)
    except (ValueError, OverflowError):
        raise FertoolError(
            f"{where}: '{','.join(texts)[:_SHOWN]}' is not a box of four numbers", _HINT
        ) from None
    box = (left, top, third, fourth)
    if "w" in form.box:
        box = (left, top, left + third, top + fourth)
    require_box(box, where, _HINT)
    return box
