import subprocess
import sys
from pathlib import Path

import fertool

DOCS = Path(__file__).parents[2] / "docs"


def test_the_page_is_current_and_has_every_name():
    made = subprocess.run(
        [sys.executable, DOCS / "make_api.py"],
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    ).stdout
    assert made == (DOCS / "api.md").read_text(encoding="utf-8"), "run: make docs"
    for name in fertool.__all__:
        assert f"\n### {name}\n" in made
