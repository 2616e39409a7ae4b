"""Results as rows of text, which terminal and page only draw."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

Fact = tuple[str, str]
"""A name and a value."""


def numeric_headers(titles: Iterable[Any]) -> list[str]:
    """Return the headers of columns of numbers."""
    return [f">{title}" for title in titles]


@dataclass(frozen=True)
class TextTable:
    """Headers and rows of text cells.

    A header that starts with `>` belongs to a column of numbers. Lines after the first of a header
    or cell are secondary.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def titles(self) -> list[str]:
        """The headers without their marks."""
        return [header.removeprefix(">") for header in self.headers]

    @property
    def numeric(self) -> list[bool]:
        """Whether each column has numbers."""
        return [header.startswith(">") for header in self.headers]


@dataclass(frozen=True)
class Section:
    """A titled part of a page; `parts` are what a writer made."""

    title: str
    parts: tuple[str, ...]


@dataclass(frozen=True)
class Card:
    """One figure of a page's head: its name, its value, and a second line."""

    name: str
    value: str
    note: str


@dataclass(frozen=True)
class Tile:
    """A small picture of a grid: PNGs side by side, what they show, and lines below them.

    The first line is the most important one.
    """

    pngs: tuple[bytes, ...]
    description: str
    lines: tuple[str, ...]
