"""A hook of MkDocs: put the pages of all commands into the navigation,
so that none is listed twice.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_SECTION = "Command line"
_FOLDER = "commands"


def on_config(config: Any) -> Any:
    """Fill the section of the command line with the pages in its folder."""
    pages = [f"{_FOLDER}/{page}" for page in command_pages(Path(config.docs_dir) / _FOLDER)]
    for section in config.nav:
        for entry in next(iter(section.values())):
            if isinstance(entry, dict) and _SECTION in entry:
                entry[_SECTION] = pages
    return config


def command_pages(folder: Path) -> list[str]:
    """Return the names of all pages in a folder: the index, those that it links to, the others."""
    index = folder / "index.md"
    found = {page.name for page in folder.glob("*.md")}
    linked = re.findall(r"\]\(([\w-]+\.md)\)", index.read_text(encoding="utf-8"))
    order = dict.fromkeys([index.name, *linked, *sorted(found)])
    return [page for page in order if page in found]
