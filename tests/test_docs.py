import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.skipif(not (ROOT / "docs" / "results.md").exists(), reason="nothing measured yet")
def test_results_are_what_the_measurements_say():
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_results.py", "--check"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert made == (ROOT / "docs" / "results.md").read_text(), "run: make results"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_command_that_the_readme_shows_has_real_options():
    from typer.main import get_command

    from fertool.cli.app import app

    commands = get_command(app).commands
    lines = re.findall(r"^fertool (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(lines) >= 7
    for line in lines:
        name, *words = line.split()
        known = {flag for parameter in commands[name].params for flag in parameter.opts}
        assert {word for word in words if word.startswith("-")} <= known, line
