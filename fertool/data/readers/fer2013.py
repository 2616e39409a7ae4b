"""Read fer2013.csv (`emotion,pixels,Usage`, one face a row) and join the votes of FER+."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fertool.artifact.input_files import require_file
from fertool.artifact.store import file_digest
from fertool.data.cache import Arrays, has_array, load_or_make
from fertool.data.data_format import DataFormat
from fertool.data.fer2013_csv import (
    LONGEST_HEADER,
    SPLIT_OF_USAGE,
    USAGES,
    column_names,
    read_rows,
)
from fertool.data.folders import find_file
from fertool.data.labels import FER2013_ORDER
from fertool.data.options import DataOptions
from fertool.data.reader import NO_FINDINGS, SPLITS, Findings, Indices, Note, Pixels, RawSplit
from fertool.data.text_files import read_text_lines
from fertool.errors import FertoolError
from fertool.registry import READERS

_FILE_NAMES = ("fer2013.csv", "icml_face_data.csv")
_CACHE_VERSION = 1
_VOTE_COLUMNS = 10
_SHOWN = 60
"""Characters of a wrong field that an error shows."""
_FERPLUS_HINT = "``ferplus`` and ``votes`` take fer2013new.csv of FER+"


@dataclass(frozen=True)
class Fer2013:
    """An opened fer2013.csv.

    `images` uint8 [N, 1, S, S], `labels` int64 [N], `split_index` [N] into `SPLITS`, and `votes`
    uint8 [N, 10] when FER+ was joined.
    """

    name: str
    digest: str
    images: Pixels
    labels: Indices
    split_index: Pixels
    votes: Pixels | None = None
    classes: tuple[str, ...] = FER2013_ORDER
    findings: Findings = NO_FINDINGS

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have rows."""
        return tuple(split for k, split in enumerate(SPLITS) if np.any(self.split_index == k))

    def read(self, split: str) -> RawSplit:
        """Return the rows of one split, in the order of the file."""
        names = np.array([f"row {row}" for row in range(1, len(self.labels) + 1)], object)
        everything = RawSplit(self.images, self.labels, self.classes, self.votes, names=names)
        return everything.subset(self.split_index == SPLITS.index(split))


@READERS.register("fer2013")
class Fer2013Csv(DataFormat):
    """A file of one face a row, fer2013.csv or icml_face_data.csv, with FER+ votes if given."""

    detection_order = 5
    has_votes = True

    def has_layout(self, path: Path) -> bool:
        """Return whether a file begins with the header, or a folder has such a file."""
        if path.is_file():
            return is_fer2013(path)
        return _find_csv(path) is not None

    def open(self, source: str, options: DataOptions, on_note: Note) -> Fer2013:
        """Open the file, or the one in a folder."""
        path = Path(source)
        if path.is_dir():
            path = _find_csv(path) or path / _FILE_NAMES[0]
        return open_fer2013(path, options.ferplus or options.votes, on_note)


def _find_csv(folder: Path) -> Path | None:
    """Return the file of a usual name in a folder, if there is one."""
    for name in _FILE_NAMES:
        path = find_file(folder, name)
        if path is not None:
            return path
    return None


def open_fer2013(path: Path, ferplus: Path | None, on_note: Callable[[str], None]) -> Fer2013:
    """Open fer2013.csv, from the cache if its content was read before, and join FER+ votes by row.

    Raises FertoolError naming file and line for a malformed row.
    """
    require_file(path)
    digest = file_digest(path)
    arrays = load_or_make(
        f"fer2013-v{_CACHE_VERSION}-{digest}",
        make=lambda: read_rows(path),
        on_note=on_note,
        valid=_are_rows,
    )
    votes = None
    # Outside of the cache, which is keyed by the content of fer2013.csv alone.
    if ferplus is not None:
        votes = read_votes(ferplus, arrays["split_index"], path)
        digest = hashlib.sha256(f"{digest} {file_digest(ferplus)}".encode()).hexdigest()
    return Fer2013(
        name=path.name,
        digest=digest,
        images=arrays["images"],
        labels=arrays["labels"],
        split_index=arrays["split_index"],
        votes=votes,
    )


def is_fer2013(path: Path) -> bool:
    """Return whether a file begins with the header of fer2013.csv."""
    with open(path, "rb") as file:
        return "pixels" in column_names(file.readline(LONGEST_HEADER))


def _are_rows(arrays: Arrays) -> bool:
    """Return whether arrays are as `read_rows` makes them."""
    if not has_array(arrays, "images", np.uint8, (None, 1, None, None)):
        return False
    count = len(arrays["images"])
    if not has_array(arrays, "labels", np.int64, (count,)):
        return False
    if not has_array(arrays, "split_index", np.uint8, (count,)):
        return False
    # Values too: an index out of range would fail far from here.
    labels = arrays["labels"]
    split_index = arrays["split_index"]
    labels_fit = labels.min() >= 0 and labels.max() < len(FER2013_ORDER)
    return bool(labels_fit and split_index.max() < len(SPLITS))


def read_votes(path: Path, split_index: Pixels, faces_path: Path) -> Pixels:
    """Read fer2013new.csv: votes uint8 [N, 10], joined by row.

    By row, since the file names no image for what is not a face. `split_index` are the splits of
    the rows of fer2013.csv. Raises FertoolError when the rows are not those of fer2013.csv, or a
    count is malformed.
    """
    rows = _vote_rows(path)
    header = next(rows, [])
    if len(header) != _VOTE_COLUMNS + 2 or header[-1].strip() != "NF":
        raise FertoolError(f"{path}:1: the header is not that of FER+", _FERPLUS_HINT)

    rows_with_content = (row for row in rows if row)
    votes = np.empty((len(split_index), _VOTE_COLUMNS), np.uint8)
    count = 0
    # In this order: zip takes no row that it has no split for.
    for index, row in zip(split_index.tolist(), rows_with_content, strict=False):
        where = f"{path}:{count + 2}"
        votes[count] = _vote_counts(row, where)
        split = SPLITS[index]
        if SPLIT_OF_USAGE.get(row[0].strip().lower()) != split:
            raise FertoolError(
                f"{where}: '{row[0][:_SHOWN]}', but the same row of {faces_path} is "
                f"{USAGES[split]}",
                "votes belong to faces by row: use the two files of the same release, unsorted",
            )
        count += 1
    count += sum(1 for _ in rows_with_content)
    if count != len(split_index):
        raise FertoolError(
            f"{path}: {count} rows of votes, but {faces_path} has {len(split_index)} faces",
            "votes belong to faces by row: use the two files of the same release, uncut",
        )
    return votes


def _vote_rows(path: Path) -> Iterator[list[str]]:
    try:
        yield from csv.reader(read_text_lines(path))
    except (OSError, csv.Error):
        raise FertoolError(f"{path}: not a readable FER+ file", _FERPLUS_HINT) from None


def _vote_counts(row: list[str], where: str) -> list[int]:
    texts = [text.strip() for text in row[2:]]
    are_counts = all(text.isdecimal() and len(text) <= 2 for text in texts)
    if len(texts) != _VOTE_COLUMNS or not are_counts:
        raise FertoolError(
            f"{where}: '{','.join(texts)[:_SHOWN]}' are not ten counts of votes",
            "copy the FER+ file again",
        )
    return [int(text) for text in texts]
