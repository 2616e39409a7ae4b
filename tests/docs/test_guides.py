"""The guides to additions are carried out as a reader would, in a copy of the sources."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from fertool import registry
from fertool.registry import Registry

ROOT = Path(__file__).parents[2]
GUIDES = sorted((ROOT / "docs" / "guides").glob("add-*.md"))
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
MEMBERS = {
    value.entry_point_group: value
    for value in vars(registry).values()
    if isinstance(value, Registry)
}
COPIED = ("fertool", "tests", "docs")
RUN_COMMANDS = """
import os, shlex, sys, tempfile
from fertool.cli.app import run
for block in sys.stdin.read().split("----"):
    # Each guide stands by itself.
    os.chdir(tempfile.mkdtemp(dir="."))
    for line in block.strip().splitlines():
        words = shlex.split(line)
        assert words[0] == "fertool", line
        code = run(words[1:])
        assert code == 0, f"{line}: exit code {code}"
    os.chdir("..")
"""


def blocks(guide, language):
    """The titles and the texts of a guide's blocks in a language."""
    found = BLOCK.findall(guide.read_text())
    return [(title, text) for kind, title, text in found if kind == language]


def files(guide):
    """The files that a guide adds, by path."""
    return {title: text for title, text in blocks(guide, "python") if title.endswith(".py")}


def insertions(guide):
    """The lines that a guide adds to files: the path, the name that a collection has there,
    the text.
    """
    for title, text in blocks(guide, "python"):
        path, separator, name = title.partition(", in ")
        if separator:
            yield path, name, text


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """Carry out all guides in a copy of the sources."""
    tree = tmp_path_factory.mktemp("tree")
    for name in COPIED:
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tree)
    for guide in GUIDES:
        for path, text in files(guide).items():
            assert not (tree / path).exists(), path
            (tree / path).write_text(text)
        for path, name, text in insertions(guide):
            before = (tree / path).read_text()
            opening = f"{name} = {{\n"
            assert opening in before
            (tree / path).write_text(before.replace(opening, opening + text))
    return tree


def call(tree, *arguments, **options):
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_guide_adds_one_file_and_its_test_and_at_most_one_line():
    assert len(GUIDES) == 6
    for guide in GUIDES:
        paths = list(files(guide))
        assert [path.split("/")[0] for path in paths] == ["fertool", "tests"], guide
        lines = [text for _, _, text in insertions(guide)]
        assert sum(text.count("\n") for text in lines) == (guide.stem == "add-command")


def test_the_commands_of_the_guides_run(tree):
    texts = []
    for guide in GUIDES:
        texts += [text for _, text in blocks(guide, "sh")]
    output = call(tree, "-c", RUN_COMMANDS, input="----".join(texts))
    assert "layer1.0.0: " in output


def test_the_tests_of_the_guides_pass_and_those_of_the_structure_still_do(tree):
    paths = ["tests/test_structure.py", "tests/cli/test_help.py"]
    for guide in GUIDES:
        paths += [path for path in files(guide) if path.startswith("tests/")]
    # Not those that ask Git, and not those of pages that are written by hand.
    skipped = "not git and not registry_or_a_path and not pages_are_current"
    call(tree, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-k", skipped, *paths)


def test_the_reference_shows_what_was_added(tree):
    call(tree, "docs/make_cli.py")
    pages = {page.name: page.read_text() for page in (tree / "docs" / "commands").glob("*.md")}
    assert "`geometric-median`" in pages["prune.md"]
    assert "`water-filling`" in pages["quantize.md"]
    assert "`folded`" in pages["export.md"]
    assert "`expw`" in pages["train-teacher.md"]
    assert "Print the layers whose output channels differ" in pages["diff.md"]
    listed = "from navigation import linked_pages; from pathlib import Path; "
    listed += "print(linked_pages(Path('docs/commands')))"
    assert "'diff.md'" in call(
        tree / "docs" / "..", "-c", f"import sys; sys.path.append('docs'); {listed}"
    )


def test_the_examples_keep_the_rules_of_the_linter(tree):
    paths = [path for guide in GUIDES for path in files(guide)]
    call(tree, "-m", "ruff", "check", "--no-cache", *paths)
    call(tree, "-m", "ruff", "format", "--no-cache", "--check", *paths)


@pytest.mark.parametrize("guide", GUIDES, ids=lambda guide: guide.stem)
def test_a_package_adds_the_same_by_an_entry_point(guide, install):
    source = next(iter(files(guide).values()))
    for _, text in blocks(guide, "toml"):
        for group, members in tomllib.loads(text)["project"]["entry-points"].items():
            ((name, point),) = members.items()
            definition = point.partition(":")[2]
            install(group, name, f"{source}\n\nMember = {definition}\n")
            assert name in MEMBERS[group].names()
            assert MEMBERS[group].load(name).__name__ == definition
