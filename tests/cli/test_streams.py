"""Standard streams as daemons, full disks and old terminals have them: no traceback,
and the work is done.
"""

import json
import os
import subprocess
import sys

import pytest

from fertool.cli.app import run

SHOW = f"{sys.executable} -m fertool show"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A small model whose name and classes are outside ASCII."""
    path = tmp_path_factory.mktemp("streams") / "größe.pt"
    arguments = (
        "train-teacher",
        "--data",
        "synth:140",
        "--arch",
        "micro_expnet",
        "--arch-arg",
        "width_mult=0.25",
    )
    assert run([*arguments, "--epochs", "1", "--device", "cpu", "-o", str(path)]) == 0
    return path


def shell(line, **environment):
    """Run a line of shell; returns (exit code, stdout, stderr)."""
    done = subprocess.run(
        ["bash", "-c", line],
        env={**os.environ, **environment},
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert b"Traceback" not in done.stderr
    assert b"Exception ignored" not in done.stderr
    return done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode()


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(model, closed):
    code, _, err = shell(f"{SHOW} '{model}' {closed}")
    assert (code, err) == (0, "")


def test_a_file_does_not_take_the_place_of_a_closed_stream(tmp_path):
    output = tmp_path / "faces.csv"
    line = f"{sys.executable} -m fertool data synth --count 70 -o '{output}'"
    assert shell(f"{line} >&- 2>&-")[0] == 0
    closed = output.read_bytes()
    assert shell(line)[0] == 0
    assert output.read_bytes() == closed


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
@pytest.mark.parametrize("flag", ["", "--json"])
def test_a_full_disk_behind_stdout_is_one_error(model, flag):
    code, _, err = shell(f"{SHOW} '{model}' {flag} > /dev/full")
    assert code == 1
    assert [line.partition(":")[0] for line in err.splitlines()] == ["error", "hint"]
    assert "No space left" in err


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no full device")
def test_a_full_disk_behind_stderr_stops_nothing(model):
    assert shell(f"{SHOW} '{model}' 2> /dev/full")[0] == 0
    assert shell(f"{SHOW} missing.pt 2> /dev/full")[0] == 1


@pytest.mark.parametrize("command", ["show", "--help"])
def test_a_reader_that_has_seen_enough(model, command):
    words = f"show '{model}'" if command == "show" else command
    _, out, err = shell(f"{sys.executable} -m fertool {words} | true; echo ${{PIPESTATUS[0]}}")
    assert int(out) in (0, 1)
    assert err == ""


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_narrow_character_sets(model, encoding):
    done = subprocess.run(
        [sys.executable, "-m", "fertool", "show", str(model), "--json"],
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
        check=True,
    )
    assert json.loads(done.stdout.decode(encoding))["file"] == str(model)
    code, out, _ = shell(f"{SHOW} '{model}'", PYTHONIOENCODING=encoding)
    assert code == 0
    assert "architecture" in out


def test_a_name_that_is_no_utf8_and_commands_a_terminal(model, tmp_path):
    name = os.fsdecode(b"m\xe9\x1b[31m.pt")
    (tmp_path / name).write_bytes(model.read_bytes())
    for flags in ((), ("--json",)):
        done = subprocess.run(
            [sys.executable, "-m", "fertool", "show", name, *flags],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert b"\x1b" not in done.stdout
        if flags:
            assert json.loads(done.stdout)["file"] == name
    for page in ("r.html", "r.MD"):
        done = subprocess.run(
            [sys.executable, "-m", "fertool", "report", name, "-o", page],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        )
        assert done.stdout == f"{page}\n".encode()
        assert "\x1b" not in (tmp_path / page).read_text(encoding="utf-8")
    assert (tmp_path / "r.MD").read_text().startswith("# ")


@pytest.mark.parametrize("columns", ["abc", "²"])
def test_useless_widths(model, columns):
    assert shell(f"{SHOW} '{model}'", COLUMNS=columns)[0] == 0
    assert shell(f"{SHOW} --help", COLUMNS=columns)[0] == 0


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "cp1252"])
@pytest.mark.parametrize(
    "arguments", [("prune", "--help"), ("--help",), ("prune",), ("nonsense…",)]
)
def test_help_is_given_in_any_charset(charset, arguments):
    environment = {**os.environ, "PYTHONIOENCODING": charset}
    done = subprocess.run(
        [sys.executable, "-m", "fertool", *arguments],
        env=environment,
        capture_output=True,
        check=False,
    )
    assert done.returncode in (0, 2)
    assert b"Traceback" not in done.stderr
    assert done.stdout or done.stderr.startswith(b"error: ")
