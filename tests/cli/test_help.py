import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from fertool.cli.app import app, run

ROOT = Path(__file__).parents[2]
ROOT_COMMAND = get_command(app)
DATA_COMMANDS = [f"data {name}" for name in ROOT_COMMAND.commands["data"].commands]
COMMANDS = [name for name in ROOT_COMMAND.commands if name != "data"] + DATA_COMMANDS


def click_command(name):
    found = ROOT_COMMAND
    for part in name.split():
        found = found.commands[part]
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_has_help_and_the_page_an_example(name):
    command = click_command(name)
    assert [p.name for p in command.params if p.name != "help" and not p.help] == []
    assert "Example: fertool " in command.help


def test_the_help_of_pruning_fits_two_screens():
    environment = {**os.environ, "COLUMNS": "100", "TERMINAL_WIDTH": "100"}
    command = [sys.executable, "-m", "fertool", "prune"]
    few, everything = (
        subprocess.run(
            [*command, flag], capture_output=True, text=True, check=True, env=environment
        ).stdout
        for flag in ("--help", "--help-all")
    )
    assert few.count("\n") <= 100
    assert "--sparsity" not in few
    assert "--sparsity" in everything


def test_same_option_same_meaning():
    meanings = {}
    for name in COMMANDS:
        for parameter in click_command(name).params:
            for flag in set(parameter.opts) & {
                "--seed",
                "--device",
                "--json",
                "--recipe",
                "--ferplus",
                "--dry-run",
            }:
                meanings.setdefault(flag, set()).add(parameter.help)
    assert {flag: kinds for flag, kinds in meanings.items() if len(kinds) > 1} == {}


def test_the_seven_commands_of_the_contract_are_there(capsys):
    assert run(["--help"]) == 0
    text = capsys.readouterr().out
    for name in [
        "train-teacher",
        "distill",
        "prune",
        "hessian-sensitivity",
        "quantize",
        "export",
        "bench",
        "eval",
        "show",
        "report",
        "data",
    ]:
        assert name in text


def test_generated_pages_are_current(tmp_path):
    subprocess.run([sys.executable, ROOT / "docs" / "make_cli.py", tmp_path], check=True)
    made = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(made) >= 29
    for path in made:
        name = path.relative_to(tmp_path)
        assert path.read_text() == (ROOT / "docs" / name).read_text(), f"{name}; run: make docs"


def test_every_command_with_json_has_a_schema():
    from fertool.results.schema import RESULTS

    with_json = set()
    for name in COMMANDS:
        flags = [flag for parameter in click_command(name).params for flag in parameter.opts]
        if "--json" in flags:
            with_json.add(name.replace(" ", "-"))
    assert with_json
    assert with_json <= set(RESULTS)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda path: path.name
)
def test_every_recipe_names_real_commands_and_options(path):
    from fertool.cli.recipe import option_names

    for command, section in yaml.safe_load(path.read_text()).items():
        assert set(section) <= set(option_names(click_command(command)))
