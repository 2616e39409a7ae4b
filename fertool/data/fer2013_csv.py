"""The text of fer2013.csv: blocks of rows parsed by array arithmetic, irregular rows one by one."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fertool.artifact.atomic import write_atomic
from fertool.data.cache import Arrays
from fertool.data.labels import FER2013_ORDER
from fertool.data.reader import SPLITS, Indices, Pixels
from fertool.data.text_files import read_lines
from fertool.errors import FertoolError

USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
SPLIT_OF_USAGE = {usage.lower(): split for split, usage in USAGES.items()} | {
    split: split for split in SPLITS
}

LONGEST_HEADER = 4096
"""Bytes of the header line that are looked at."""
_BLOCK_ROWS = 64
"""Rows parsed at once: about 0.5 MB, so that temporary arrays stay in the processor's cache."""
_BLOCK_BYTES = 1 << 20
"""A block ends at this much text, so that fewer rows are parsed at once where images are large."""
_HINT = (
    "a row is: emotion 0-6, then the gray levels 0-255 of a square image, "
    "then Training, PublicTest or PrivateTest"
)


def read_rows(path: Path) -> Arrays:
    """Read a file like fer2013.csv.

    Returns `images` uint8 [N, 1, S, S], `labels` int64 [N] and `split_index` uint8 [N] into
    `SPLITS`. The columns may come in any order and with spaces in the header; without Usage all
    rows are for training. Raises FertoolError naming file and line of the first malformed row.
    """
    lines = read_lines(path)
    columns = _Columns.of(path, next(lines, b""))
    labels: list[int] = []
    splits: list[int] = []
    blocks: list[Pixels] = []
    pixel_count = 0
    for block in _blocks(lines):
        rows = [columns.fields(text, line) for line, text in block]
        texts = [row[columns.pixels] for row in rows]
        if not pixel_count:
            first_line = block[0][0]
            pixel_count = _pixel_count(texts[0], f"{path}:{first_line}")

        parsed = _parse_block(texts, pixel_count)
        if parsed is None:
            # Row by row, for the error that names a line; a row may also be merely irregular.
            parsed = np.empty((len(texts), pixel_count), np.uint8)
            for i, text in enumerate(texts):
                line, _ = block[i]
                parsed[i] = _parse_row(text, pixel_count, f"{path}:{line}")
        blocks.append(parsed)
        for row, (line, _) in zip(rows, block, strict=True):
            labels.append(columns.label(row, line))
            splits.append(columns.split(row, line))
    if not blocks:
        raise FertoolError(f"{path}: a header but no rows", _HINT)

    size = math.isqrt(pixel_count)
    return {
        "images": np.concatenate(blocks).reshape(-1, 1, size, size),
        "labels": np.array(labels, np.int64),
        "split_index": np.array(splits, np.uint8),
    }


def write_csv(path: Path, images: Pixels, labels: Indices, splits: Sequence[str]) -> None:
    """Write faces as fer2013.csv, atomically.

    `images` uint8 [N, 1, S, S], `labels` int64 [N] in fer2013's order, `splits` a name for each.
    """
    # Looked up, not formatted: there are thousands of pixels in a row.
    text_of_level = [str(level) for level in range(256)]
    lines = ["emotion,pixels,Usage"]
    flat = images.reshape(len(images), -1).tolist()
    for image, label, split in zip(flat, labels.tolist(), splits, strict=True):
        pixels = " ".join([text_of_level[level] for level in image])
        lines.append(f"{label},{pixels},{USAGES[split]}")
    write_atomic(path, ("\n".join(lines) + "\n").encode())


def _blocks(lines: Iterator[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield blocks of rows that are not blank, each row with the number of its line."""
    block: list[tuple[int, bytes]] = []
    size = 0
    for number, row in enumerate(lines, start=2):
        if row.strip():
            block.append((number, row))
            size += len(row)
        if len(block) == _BLOCK_ROWS or size >= _BLOCK_BYTES:
            yield block
            block = []
            size = 0
    if block:
        yield block


def column_names(header: bytes) -> list[str]:
    """Return the names in a header line, in lower case and without spaces or quotes."""
    # utf-8-sig: spreadsheets write a byte order mark before the first name.
    names = header.decode("utf-8-sig", "replace").split(",")
    return [name.strip(' "\r\n').lower() for name in names]


@dataclass(frozen=True)
class _Columns:
    """The positions of the fields in a row; `usage` is None in a file of training rows only."""

    path: Path
    count: int
    emotion: int
    pixels: int
    usage: int | None

    @classmethod
    def of(cls, path: Path, header: bytes) -> _Columns:
        names = column_names(header[:LONGEST_HEADER])
        if "emotion" not in names or "pixels" not in names:
            raise FertoolError(
                f"{path}:1: the header has no columns 'emotion' and 'pixels'",
                "fer2013.csv begins: emotion,pixels,Usage",
            )
        # Releases differ: icml_face_data.csv has Usage before the pixels.
        return cls(
            path=path,
            count=len(names),
            emotion=names.index("emotion"),
            pixels=names.index("pixels"),
            usage=names.index("usage") if "usage" in names else None,
        )

    def fields(self, row: bytes, line: int) -> list[bytes]:
        # Counted before the split, which a row of a million commas would make expensive.
        count = row.count(b",") + 1
        if count != self.count:
            raise FertoolError(f"{self.path}:{line}: {count} fields, expected {self.count}", _HINT)
        return [field.strip(b' "\r\n') for field in row.split(b",")]

    def label(self, fields: list[bytes], line: int) -> int:
        text = fields[self.emotion]
        if not _is_number(text) or int(text) >= len(FER2013_ORDER):
            raise FertoolError(
                f"{self.path}:{line}: emotion {_quoted(text)} is not a number from 0 to 6", _HINT
            )
        return int(text)

    def split(self, fields: list[bytes], line: int) -> int:
        if self.usage is None:
            return 0
        text = fields[self.usage]
        split = SPLIT_OF_USAGE.get(text.decode("utf-8", "replace").lower())
        if split is None:
            raise FertoolError(f"{self.path}:{line}: Usage {_quoted(text)} is unknown", _HINT)
        return SPLITS.index(split)


def _parse_block(texts: list[bytes], pixel_count: int) -> Pixels | None:
    """Parse rows of numbers at once, uint8 [R, pixel_count]; None unless all are well-formed.

    Each byte is combined with the two before it; the result where a number ends is its value.
    """
    # Two spaces first, so that every byte of the rows has two before it.
    text = b"  " + b"\n".join(texts) + b"\n"
    codes = np.frombuffer(text, np.uint8)
    digits = codes - np.uint8(ord("0"))
    is_digit = digits < 10
    digits *= is_digit
    last_two = digits[:-1] * np.uint8(10)
    last_two += digits[1:]
    hundreds = digits[:-2] * is_digit[1:-1]
    ends = np.flatnonzero(is_digit[2:-1] & ~is_digit[3:])

    numbers = len(texts) * pixel_count
    if len(ends) != numbers:
        return None
    # The two spaces at the start, and one between the numbers of a row.
    if np.count_nonzero(codes == ord(" ")) != numbers - len(texts) + 2:
        return None
    # Besides digits: those spaces, and one end of a line for each row.
    if len(text) - np.count_nonzero(is_digit) != numbers + 2:
        return None
    row_ends = np.cumsum([len(row) + 1 for row in texts]) - 2
    if np.any(ends[pixel_count - 1 :: pixel_count] != row_ends):
        return None
    # At most three digits: then ends are at most four bytes apart.
    if ends[0] > 2 or np.any(np.diff(ends) > 4):
        return None

    low = last_two[1:-1].take(ends)
    high = hundreds[:-1].take(ends)
    # Checked before the sum, which overflows uint8 above 255.
    if np.any((high > 2) | ((high == 2) & (low > 55))):
        return None
    values: Pixels = high * np.uint8(100) + low
    return values.reshape(len(texts), pixel_count)


def _parse_row(text: bytes, pixel_count: int, where: str) -> Pixels:
    """Parse one row number by number; extra spaces and leading zeros are accepted.

    Raises FertoolError naming the first wrong pixel.
    """
    words = text.split()
    for position, word in enumerate(words, start=1):
        if not _is_number(word) or int(word) > 255:
            raise FertoolError(
                f"{where}: pixel {position} is {_quoted(word)}, not a number from 0 to 255", _HINT
            )
    if len(words) != pixel_count:
        raise FertoolError(f"{where}: {len(words)} pixels, expected {pixel_count}", _HINT)
    return np.array([int(word) for word in words], np.uint8)


def _pixel_count(text: bytes, where: str) -> int:
    """Return how many pixels the rows of a file have, from its first row."""
    count = len(text.split())
    if count == 0 or math.isqrt(count) ** 2 != count:
        nearest = round(math.sqrt(count)) or 48
        raise FertoolError(
            f"{where}: {count} pixels are not a square; {nearest}x{nearest} has {nearest**2}", _HINT
        )
    return count


def _is_number(text: bytes) -> bool:
    # Python refuses to convert thousands of digits.
    return text.isdigit() and len(text) < 10


def _quoted(text: bytes) -> str:
    return repr(text[:20].decode("utf-8", "replace"))
