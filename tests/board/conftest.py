"""The programs of a bundle import each other by their bare names, as in its folder."""

import importlib
import sys
from pathlib import Path

import pytest

import fertool.board

NAMES = ("machine", "start", "timing", "camera")


@pytest.fixture
def program(monkeypatch):
    """Import a program of a bundle by its name."""
    monkeypatch.syspath_prepend(str(Path(fertool.board.__file__).parent))
    yield importlib.import_module
    for name in NAMES:
        sys.modules.pop(name, None)
