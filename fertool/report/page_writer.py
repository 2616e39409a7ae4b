"""What a page is written with; `html_writer` and `markdown_writer` do it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from fertool.report.text_table import Card, Fact, Section, TextTable, Tile


class PageWriter(Protocol):
    """Writes the pieces of a page, each as a text; an empty one where it has no room for it."""

    def page(self, title: str, head: Iterable[str], sections: Sequence[Section]) -> str:
        """Return a whole document."""

    def verdict(self, text: str) -> str:
        """Return the sentence that stands above everything."""

    def cards(self, figures: Sequence[Card]) -> str:
        """Return a few figures in large type."""

    def heading(self, text: str) -> str:
        """Return a heading inside a section."""

    def folded(self, title: str, *parts: str) -> str:
        """Return parts under their heading, which may be hidden until they are asked for."""

    def beside(self, *parts: str) -> str:
        """Return parts that stand beside each other where there is room."""

    def paragraph(self, text: str, kind: str = "") -> str:
        """Return a paragraph; `kind` "notice" or "quiet" changes its looks."""

    def table(self, content: TextTable) -> str:
        """Return a table."""

    def facts(self, pairs: Iterable[Fact]) -> str:
        """Return names and values."""

    def matrix(self, content: TextTable, caption: str) -> str:
        """Return a table of percentages in colors."""

    def picture(self, draw: Callable[[], bytes], caption: str) -> str:
        """Return the SVG that `draw` makes."""

    def tiles(self, pictures: Sequence[Tile]) -> str:
        """Return a grid of small pictures."""


def section(title: str, *parts: str) -> Section:
    """Return a section of the parts that a writer had room for."""
    return Section(title, tuple(part for part in parts if part))
