import re
import shlex
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


def command_lines():
    """Every `fertool …` in the shell blocks of the pages, with the name of its page."""
    # Guides to additions use what they add; tests/docs/test_guides.py runs them.
    for page in [page for page in PAGES if not page.name.startswith("add-")]:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                found = re.search(r"(?:^|-m |&& |; )fertool (\S.*)", line)
                if found:
                    yield page.name, re.split(r" #| \| | && | > |; ", found[1])[0].strip()


def test_every_command_that_a_page_shows_is_one_that_the_program_takes():
    lines = list(command_lines())
    assert len(lines) >= 60
    for page, line in lines:
        name, *words = shlex.split(line)
        if name.startswith("-") or "…" in words:
            continue
        if name in GROUPS:
            name = f"{name} {words.pop(0)}"
        try:
            commands()[name].make_context(name, words)
        except Exception as error:
            pytest.fail(f"{page}: fertool {line}: {error!r}")


def test_pages_name_only_options_that_exist():
    known = set().union(*options().values(), {"--help", "--version", *TORCHRUN})
    for page in PAGES:
        for text in re.findall(r"`(--[^`]+)`", page.read_text()):
            flag = text.split()[0].rstrip(".,:")
            assert flag in known, f"{page}: {text}"


TORCHRUN = ("--max-restarts", "--nnodes", "--rdzv-endpoint")
GROUPS = ("data",)


@cache
def commands():
    """The commands by name."""
    from typer.main import get_command

    from fertool.cli.app import app

    found = dict(get_command(app).commands)
    for group in GROUPS:
        for name, command in found.pop(group).commands.items():
            found[f"{group} {name}"] = command
    return found


@cache
def options() -> dict[str, set[str]]:
    """The options of every command, by its name."""
    found = {}
    for name, command in commands().items():
        flags = set()
        for parameter in command.params:
            flags |= {*parameter.opts, *parameter.secondary_opts}
        found[name] = flags
    return found
