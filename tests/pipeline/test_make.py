"""The Makefile hands every value of DATA to the commands as one word."""

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ROOT = Path(__file__).parent.parent.parent
SIGNS = st.text("ab1/._- '\"$;&|<>()*?`\\%:#~=[]{}!é", min_size=1)


def dry_run(*words):
    return subprocess.run(
        ["make", "-n", "-C", ROOT, "VENV=made", "-o", "install", *words],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("target", ["chain", "two_cores"])
def test_signs_of_the_shell_in_data(target):
    @settings(max_examples=30, deadline=None)
    @given(SIGNS)
    def check(data):
        # make itself has its ends of a line cut off blanks, and a dollar written twice.
        data = f"x{data.rstrip()}"
        printed = dry_run(target, f"DATA={data.replace('$', '$$')}").stdout
        (line,) = [line for line in printed.splitlines() if " train-teacher " in line]
        words = shlex.split(line)
        assert words[words.index("--data") + 1] == data

    check()


@pytest.mark.parametrize("name", ["a b", "a'b", "a*b", "a;b"])
def test_names_that_make_would_take_apart_are_refused(name):
    for variable in ("RUNS", "RUN"):
        done = dry_run("chain", f"{variable}={name}")
        assert done.returncode == 2
        assert "choose another folder" in done.stderr


def test_the_report_gets_the_models_beside_which_it_finds_the_training_curves():
    (line,) = [line for line in dry_run("chain").stdout.splitlines() if " report " in line]
    names = {Path(word).name for word in shlex.split(line)}
    assert {"teacher.pt", "student.pt", "pruned.pt", "bench.json", "eval.json"} <= names
