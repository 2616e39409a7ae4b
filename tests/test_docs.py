import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TEMPLATES = ROOT / "docs" / "templates"
PAGES = [ROOT / "README.md"]
PAGES += [page for page in sorted((ROOT / "docs").rglob("*.md")) if TEMPLATES not in page.parents]


@pytest.mark.skipif(not (ROOT / "docs" / "results.md").exists(), reason="nothing measured yet")
def test_results_are_what_the_measurements_say():
    made = subprocess.run(
        [sys.executable, ROOT / "docs" / "make_results.py", "--check"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert made == (ROOT / "docs" / "results.md").read_text(), "run: make results"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_every_command_that_a_page_shows_has_real_options():
    lines = []
    # Guides to additions use what they add; tests/docs/test_guides.py runs them.
    for page in [page for page in PAGES if not page.name.startswith("add-")]:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            lines += re.findall(r"^ *fertool (.+)$", block, re.MULTILINE)
    assert len(lines) >= 40
    for line in lines:
        # Continued lines end in a backslash; a comment is no part of the command.
        name, *words = line.partition(" #")[0].rstrip("\\").split()
        if name.startswith("-"):
            continue
        if name == "data":
            name = f"data {words.pop(0)}"
        flags = {word for word in words if word.startswith("-")}
        assert flags <= options()[name], line


def test_pages_name_only_options_that_exist():
    known = set().union(*options().values(), {"--help", "--version", *TORCHRUN})
    for page in PAGES:
        for text in re.findall(r"`(--[^`]+)`", page.read_text()):
            flag = text.split()[0].rstrip(".,")
            assert flag in known, f"{page}: {text}"


TORCHRUN = ("--max-restarts", "--nnodes", "--rdzv-endpoint")
GROUPS = ("data",)


@cache
def options() -> dict[str, set[str]]:
    """The options of every command, by its name."""
    from typer.main import get_command

    from fertool.cli.app import app

    commands = dict(get_command(app).commands)
    for group in GROUPS:
        for name, command in commands[group].commands.items():
            commands[f"{group} {name}"] = command
    found = {}
    for name, command in commands.items():
        found[name] = {
            flag
            for parameter in command.params
            for flag in [*parameter.opts, *parameter.secondary_opts]
        }
    return found
