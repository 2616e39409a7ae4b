"""The rows of fer2013.csv: parsed block by block with array arithmetic, row by row where something is odd."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fertool.data.cache import Arrays
from fertool.data.faces import SPLITS, Pixels
from fertool.data.labels import FER2013_ORDER
from fertool.data.lines import read_lines
from fertool.errors import FertoolError

USAGES = {"train": "Training", "val": "PublicTest", "test": "PrivateTest"}
SPLIT_OF_USAGE = {usage.lower(): split for split, usage in USAGES.items()} | {
    split: split for split in SPLITS
}

_BLOCK_ROWS = 64
"""Rows parsed at once: about 0.5 MB of text, so that the temporary arrays stay in the processor's cache."""
_BLOCK_BYTES = 1 << 20
"""Text parsed at once, as soon as there is one row: rows of large images are parsed a few at a time."""
_LONGEST_HEADER = 4096
_HINT = "a row is: emotion 0-6, then the grey levels 0-255 of a square image, then Training, PublicTest or PrivateTest"


def read_rows(path: Path) -> Arrays:
    """Read a file like fer2013.csv: `images` uint8 [N, 1, S, S], `labels` int64 [N], `split_index` [N] into `SPLITS`.

    The columns may come in any order and with spaces in the header; without Usage all rows are for training.
    Raises FertoolError naming file and line of the first row that is not as it should be.
    """
    labels: list[int] = []
    splits: list[int] = []
    blocks: list[Pixels] = []
    pixels = 0
    lines = read_lines(path)
    columns = _Columns.of(path, next(lines, b""))
    for block in _blocks(lines):
        rows = [columns.fields(row, line) for line, row in block]
        texts = [fields[columns.pixels] for fields in rows]
        pixels = pixels or _pixel_count(texts[0], f"{path}:{block[0][0]}")
        parsed = _parse_block(texts, pixels)
        if parsed is None:
            parsed = np.stack(
                [
                    _parse_row(t, pixels, f"{path}:{line}")
                    for t, (line, _) in zip(texts, block, strict=True)
                ]
            )
        blocks.append(parsed)
        labels += [
            columns.label(fields, line) for fields, (line, _) in zip(rows, block, strict=True)
        ]
        splits += [
            columns.split(fields, line) for fields, (line, _) in zip(rows, block, strict=True)
        ]
    if not blocks:
        raise FertoolError(f"{path}: a header but no rows", _HINT)
    size = math.isqrt(pixels)
    images = np.concatenate(blocks).reshape(-1, 1, size, size)
    return {
        "images": images,
        "labels": np.array(labels, np.int64),
        "split_index": np.array(splits, np.uint8),
    }


def _blocks(lines: Iterator[bytes]) -> Iterator[list[tuple[int, bytes]]]:
    """Yield rows that are not blank with the numbers of their lines, as many at once as are parsed at once."""
    block: list[tuple[int, bytes]] = []
    held = 0
    for number, row in enumerate(lines, start=2):
        if row.strip():
            block.append((number, row))
            held += len(row)
        if len(block) == _BLOCK_ROWS or held >= _BLOCK_BYTES:
            yield block
            block, held = [], 0
    if block:
        yield block


def column_names(header: bytes) -> list[str]:
    """Return the names in a header line, in lower case and without spaces or quotes."""
    return [
        name.strip(' "\r\n').lower() for name in header.decode("utf-8-sig", "replace").split(",")
    ]


@dataclass(frozen=True)
class _Columns:
    """Where the fields of a row are; `usage` is None in a file of training rows only."""

    path: Path
    count: int
    emotion: int
    pixels: int
    usage: int | None

    @classmethod
    def of(cls, path: Path, header: bytes) -> _Columns:
        names = column_names(header[:_LONGEST_HEADER])
        if not {"emotion", "pixels"} <= set(names):
            raise FertoolError(
                f"{path}:1: the header has no columns 'emotion' and 'pixels'",
                "fer2013.csv begins: emotion,pixels,Usage",
            )
        usage = names.index("usage") if "usage" in names else None
        return cls(path, len(names), names.index("emotion"), names.index("pixels"), usage)

    def fields(self, row: bytes, line: int) -> list[bytes]:
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


def _parse_block(texts: list[bytes], pixels: int) -> Pixels | None:
    """Parse rows of numbers at once, uint8 [R, pixels]; None unless all are well-formed.

    Each byte is combined with the two before it; what stands where a number ends is its value.
    """
    text = b"  " + b"\n".join(texts) + b"\n"
    codes = np.frombuffer(text, np.uint8)
    digits = codes - np.uint8(ord("0"))
    is_digit = digits < 10
    digits *= is_digit
    tail = digits[:-1] * np.uint8(10)
    tail += digits[1:]
    hundreds = digits[:-2] * is_digit[1:-1]
    ends = np.flatnonzero(is_digit[2:-1] & ~is_digit[3:])
    numbers = len(texts) * pixels
    one_space_each = np.count_nonzero(codes == ord(" ")) == numbers - len(texts) + 2
    if (
        len(ends) != numbers
        or not one_space_each
        or len(text) - np.count_nonzero(is_digit) != numbers + 2
    ):
        return None
    row_ends = np.cumsum([len(row) + 1 for row in texts]) - 2
    if np.any(ends[pixels - 1 :: pixels] != row_ends) or ends[0] > 2 or np.any(np.diff(ends) > 4):
        return None
    low, high = tail[1:-1].take(ends), hundreds[:-1].take(ends)
    if np.any((high > 2) | ((high == 2) & (low > 55))):
        return None
    values: Pixels = high * np.uint8(100) + low
    return values.reshape(len(texts), pixels)


def _parse_row(text: bytes, pixels: int, where: str) -> Pixels:
    """Parse one row number by number and say what is wrong with it; odd spacing and leading zeros are let through."""
    words = text.split()
    for position, word in enumerate(words, start=1):
        if not _is_number(word) or int(word) > 255:
            raise FertoolError(
                f"{where}: pixel {position} is {_quoted(word)}, not a number from 0 to 255", _HINT
            )
    if len(words) != pixels:
        raise FertoolError(f"{where}: {len(words)} pixels, expected {pixels}", _HINT)
    return np.array([int(word) for word in words], np.uint8)


def _pixel_count(text: bytes, where: str) -> int:
    """Return how many pixels the rows of a file have, by its first row."""
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
