"""fer2013.csv: `emotion,pixels,Usage`, one face a row, and with it the votes of FER+."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fertool.artifact.atomic import write_atomic
from fertool.artifact.header import require_file
from fertool.artifact.store import file_digest
from fertool.data.cache import Arrays, cached, holds
from fertool.data.csv_rows import SPLIT_OF_USAGE, USAGES, column_names, read_rows
from fertool.data.faces import NO_FINDINGS, SPLITS, Faces, Findings, Indices, Pixels
from fertool.data.labels import FER2013_ORDER
from fertool.data.lines import read_text_lines
from fertool.errors import FertoolError

_CACHE_VERSION = 1
_FERPLUS_HINT = "--ferplus takes fer2013new.csv of FER+"


@dataclass(frozen=True)
class Fer2013:
    """An opened fer2013.csv: `images` uint8 [N, 1, S, S], `labels` int64 [N], `split_index` [N] into `SPLITS`.

    `votes` uint8 [N, 10] when FER+ was joined.
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

    def read(self, split: str) -> Faces:
        """Return the rows of one split, in the order of the file."""
        everything = Faces(self.images, self.labels, self.classes, self.votes)
        return everything.subset(self.split_index == SPLITS.index(split))


def open_fer2013(path: Path, ferplus: Path | None, on_note: Callable[[str], None]) -> Fer2013:
    """Open fer2013.csv, from the cache if its content was read before, and join FER+ votes by row.

    Raises FertoolError naming file and line for a row that is not as it should be.
    """
    require_file(path)
    digest = file_digest(path)
    arrays = cached(
        f"fer2013-v{_CACHE_VERSION}-{digest}", lambda: read_rows(path), on_note, _are_rows
    )
    votes = None
    if ferplus is not None:
        votes = read_votes(ferplus, arrays["split_index"], path)
        digest = hashlib.sha256(f"{digest} {file_digest(ferplus)}".encode()).hexdigest()
    return Fer2013(
        path.name, digest, arrays["images"], arrays["labels"], arrays["split_index"], votes
    )


def is_fer2013(path: Path) -> bool:
    """Say whether a file begins with the header of fer2013.csv."""
    with open(path, "rb") as file:
        return "pixels" in column_names(file.readline(4096))


def _are_rows(arrays: Arrays) -> bool:
    """Say whether arrays are as `read_rows` makes them."""
    if not holds(arrays, "images", np.uint8, (None, 1, None, None)):
        return False
    count = len(arrays["images"])
    if not holds(arrays, "labels", np.int64, (count,)) or not holds(
        arrays, "split_index", np.uint8, (count,)
    ):
        return False
    labels, splits = arrays["labels"], arrays["split_index"]
    return bool(
        labels.min() >= 0 and labels.max() < len(FER2013_ORDER) and splits.max() < len(SPLITS)
    )


def write_csv(path: Path, images: Pixels, labels: Indices, splits: Sequence[str]) -> None:
    """Write faces as fer2013.csv, atomically: uint8 [N, 1, S, S], int64 [N] in fer2013's order, a split name each."""
    grey = [str(level) for level in range(256)]
    rows = ["emotion,pixels,Usage"]
    for image, label, split in zip(
        images.reshape(len(images), -1).tolist(), labels.tolist(), splits, strict=True
    ):
        rows.append(f"{label},{' '.join([grey[level] for level in image])},{USAGES[split]}")
    write_atomic(path, ("\n".join(rows) + "\n").encode())


def read_votes(path: Path, split_index: Pixels, faces_path: Path) -> Pixels:
    """Read fer2013new.csv: votes uint8 [N, 10], joined by row, since names are missing for what is not a face.

    Raises FertoolError when the rows are not those of fer2013.csv, whose splits are `split_index`, or a count is bad.
    """
    rows = _vote_rows(path)
    header = next(rows, [])
    if len(header) != 12 or header[-1].strip() != "NF":
        raise FertoolError(f"{path}:1: the header is not that of FER+", _FERPLUS_HINT)
    filled = (row for row in rows if row)
    votes = np.empty((len(split_index), 10), np.uint8)
    count = 0
    # In this order: zip takes no row that it has no split for.
    for split, row in zip(split_index.tolist(), filled, strict=False):
        where = f"{path}:{count + 2}"
        votes[count] = _ten_counts(row, where)
        if SPLIT_OF_USAGE.get(row[0].strip().lower()) != SPLITS[split]:
            raise FertoolError(
                f"{where}: '{row[0][:60]}', but the same row of {faces_path} is {USAGES[SPLITS[split]]}",
                "votes belong to faces by row: use the two files of the same release, unsorted",
            )
        count += 1
    count += sum(1 for _ in filled)
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


def _ten_counts(row: list[str], where: str) -> list[int]:
    counts = [text.strip() for text in row[2:]]
    if len(counts) != 10 or not all(count.isdecimal() and len(count) <= 2 for count in counts):
        raise FertoolError(
            f"{where}: '{','.join(counts)[:60]}' are not ten counts of votes",
            "copy the FER+ file again",
        )
    return [int(count) for count in counts]
