"""A hook of MkDocs: put the pages of all commands and targets into the navigation,
so that none is listed twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_FOLDERS = {"Command line": "commands", "Targets": "targets"}
"""Of the sections whose pages are those of a folder."""


def on_config(config: Any) -> Any:
    """Fill the sections of commands and targets with the pages in their folders."""
    for section in config.nav:
        _fill(section, Path(config.docs_dir))
        for entry in next(iter(section.values())):
            if isinstance(entry, dict):
                _fill(entry, Path(config.docs_dir))
    return config


def _fill(section: dict[str, Any], docs: Path) -> None:
    for name, folder in _FOLDERS.items():
        if name in section:
            section[name] = [f"{folder}/{page}" for page in linked_pages(docs / folder)]


def linked_pages(folder: Path) -> list[str]:
    """Return the names of all pages in a folder: the index, those that it links to, the others."""
    index = folder / "index.md"
    found = {page.name for page in folder.glob("*.md")}
    linked = re.findall(r"\]\(([\w-]+\.md)\)", index.read_text(encoding="utf-8"))
    order = dict.fromkeys([index.name, *linked, *sorted(found)])
    return [page for page in order if page in found]
