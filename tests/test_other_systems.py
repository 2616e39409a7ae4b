"""The package where parts of POSIX are missing, as on Windows: simulated,
for want of such a machine.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

# Missing for fertool's own modules only: other packages have their own ways on each system, which
# they choose by its name.
SIMULATION = """
import builtins, os, pkgutil, signal, sys
import numpy, onnx, onnxruntime, PIL.Image, rich, torch, torch.distributed, typer

real_import = builtins.__import__
def without_posix(name, globals=None, *others, **more):
    caller = (globals or {}).get("__name__") or ""
    if name in ("fcntl", "resource", "pwd", "grp", "termios") and caller.startswith("fertool"):
        raise ImportError(name)
    return real_import(name, globals, *others, **more)
builtins.__import__ = without_posix
for name in ("fchmod", "sched_getaffinity", "O_NOFOLLOW", "O_NONBLOCK", "mkfifo", "killpg",
             "setsid"):
    delattr(os, name)
del signal.SIGHUP
real_replace = os.replace
def replace(source, target):
    # Windows renames no open file.
    opened = {os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")}
    assert os.path.realpath(source) not in opened, f"{source} is open"
    real_replace(source, target)
if os.path.isdir("/proc/self/fd"):
    os.replace = replace
"""
NETWORK = ("--arch", "micro_expnet", "--arch-arg", "width_mult=0.25", "--input-size", "32")


def run(code: str, folder: Path) -> str:
    temporary = folder / "tmp"
    temporary.mkdir()
    places = {"FERTOOL_CACHE": str(folder / "cache"), "TMPDIR": str(temporary)}
    environment = {**os.environ, **places, "ORT_DISABLE_TELEMETRY": "1"}
    command = [sys.executable, "-c", SIMULATION + code]
    ended = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_every_module_is_imported(tmp_path: Path) -> None:
    code = """
import fertool
names = [entry.name for entry in pkgutil.walk_packages(fertool.__path__, "fertool.")]
for name in names:
    # Programs for a board import each other as files of one folder.
    if not name.startswith("fertool.board."):
        __import__(name)
print(len(names))
"""
    assert int(run(code, tmp_path)) > 150


def test_a_network_is_trained_shown_and_exported(tmp_path: Path) -> None:
    train = ["train-teacher", "-o", "m.pt", "--data", "synth:80", *NETWORK, "--epochs", "1"]
    commands = [["--help"], train, train, ["export", "m.pt", "-o", "m.onnx", "--no-simplify"]]
    code = f"""
from fertool.cli import app
for command in {commands!r}:
    assert app.run(command) == 0, command
sys.argv = ["fertool", "show", "m.pt", "--json"]
app.main()
"""
    printed = run(code, tmp_path)
    assert "train-teacher" in printed
    assert json.loads(printed[printed.index("\n{") :])["arch"] == "micro_expnet"
    # No temporary file of fertool is left, and none beside its results.
    assert not list((tmp_path / "tmp").glob("fertool-*"))
    files = {path.name for path in tmp_path.iterdir()}
    assert files == {"cache", "tmp", "m.pt", "m.pt.history.json", "m.onnx"}


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (100_000, False)])
def test_without_locks_a_day_tells_a_leftover(tmp_path: Path, age_s: int, stays: bool) -> None:
    code = f"""
import time
from pathlib import Path
from fertool.artifact import atomic
assert not atomic.HAS_LOCKS
left = Path(f".a.pt.{{atomic._machine_id()}}-abcdefgh.tmp")
left.write_bytes(b"half")
os.utime(left, (time.time() - {age_s},) * 2)
atomic.write_atomic(Path("a.pt"), b"new")
with atomic.temporary_folder() as folder:
    (folder / "file").write_bytes(b"")
print(left.exists(), folder.exists())
"""
    assert run(code, tmp_path) == f"{stays} False\n"


def test_memory_that_a_system_does_not_tell_is_none(tmp_path: Path) -> None:
    code = """
from fertool.runtime import fresh_process_child
fresh_process_child._vm_high_water_bytes = lambda: None
print(fresh_process_child.peak_rss_bytes())
"""
    assert run(code, tmp_path) == "None\n"


def test_text_files_are_opened_with_a_charset_of_their_own() -> None:
    package = Path(__file__).parent.parent / "fertool"
    for path in package.rglob("*.py"):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            opens = ".read_text(" in line or ".write_text(" in line
            assert not opens or "encoding=" in line, f"{path.name}:{number}"
