import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from fertool.artifact import atomic
from fertool.artifact.atomic import require_writable, temporary_folder, write_atomic
from fertool.errors import FertoolError


def test_a_new_file_follows_the_umask_and_leaves_nothing_beside_it(tmp_path):
    old = os.umask(0o027)
    try:
        write_atomic(tmp_path / "deep" / "a.pt", b"content")
    finally:
        os.umask(old)
    written = tmp_path / "deep" / "a.pt"
    assert written.read_bytes() == b"content"
    assert stat.S_IMODE(written.stat().st_mode) == 0o640
    assert os.listdir(written.parent) == ["a.pt"]


def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")
    path.chmod(0o600)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_link_is_written_through(tmp_path):
    (tmp_path / "real").mkdir()
    target = tmp_path / "real" / "a.pt"
    target.write_bytes(b"old")
    (tmp_path / "link.pt").symlink_to(target)
    write_atomic(tmp_path / "link.pt", b"new")
    assert target.read_bytes() == b"new"
    assert (tmp_path / "link.pt").is_symlink()


def test_a_full_disk_keeps_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "a.pt"
    path.write_bytes(b"old")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FertoolError, match=r"a\.pt: cannot write \(No space left on device\)"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.pt"]


def test_kill_9_at_any_moment_leaves_a_whole_file(tmp_path):
    path = tmp_path / "a.pt"
    path.write_bytes(b"0" * 4_000_000)
    writer = (
        "import sys, pathlib\nfrom fertool.artifact.atomic import write_atomic\n"
        "n = 0\nprint('go', flush=True)\n"
        "while True:\n    n += 1\n"
        "    write_atomic(pathlib.Path(sys.argv[1]), str(n % 10).encode() * 4_000_000)\n"
    )
    for delay in (0.001, 0.003, 0.007, 0.02, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", writer, str(path)], stdout=subprocess.PIPE
        )
        process.stdout.readline()
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.wait()
        content = path.read_bytes()
        assert len(content) == 4_000_000
        assert len(set(content)) == 1


@pytest.mark.parametrize("kind", ["input", "folder"])
def test_an_output_that_would_destroy_something_is_refused_before_any_work(tmp_path, kind):
    source = tmp_path / "in.pt"
    source.write_bytes(b"precious")
    (tmp_path / "link.pt").symlink_to(source)
    target = tmp_path / "link.pt" if kind == "input" else tmp_path
    with pytest.raises(
        FertoolError, match="is also an input" if kind == "input" else "is a folder"
    ):
        require_writable(target, source)
    assert source.read_bytes() == b"precious"


def test_a_place_that_cannot_become_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FertoolError, match="cannot write"):
        require_writable(tmp_path / "file" / "a.pt")


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(FertoolError, match="/dev/null: is not a regular file"):
        require_writable(Path("/dev/null"))


def started(code, *arguments):
    """Run Python code up to its first line of output."""
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE
    )
    process.stdout.readline()
    return process


WRITES = (
    "import sys, time, pathlib\nfrom fertool.artifact.atomic import replacing\n"
    "with replacing(pathlib.Path(sys.argv[1])) as file:\n"
    "    file.write(b'half'); file.flush(); print('go', flush=True); time.sleep(60)\n"
)
FOLDER = (
    "import time\nfrom fertool.artifact.atomic import temporary_folder\n"
    "with temporary_folder() as folder:\n"
    "    (folder / 'a').mkdir(); print('go', flush=True); time.sleep(60)\n"
)


def test_what_a_killed_writer_has_left_goes_with_the_next_write_to_its_folder(tmp_path):
    process = started(WRITES, tmp_path / "a.pt")
    process.kill()
    process.wait()
    assert len(os.listdir(tmp_path)) == 1
    write_atomic(tmp_path / "another.pt", b"new")
    assert os.listdir(tmp_path) == ["another.pt"]


def test_a_writer_at_work_keeps_its_file(tmp_path):
    process = started(WRITES, tmp_path / "a.pt")
    try:
        for _ in range(3):
            write_atomic(tmp_path / "a.pt", b"new")
        assert len(os.listdir(tmp_path)) == 2
    finally:
        process.kill()
        process.wait()


def test_temporary_folders_of_killed_processes_go_and_those_in_use_stay(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    killed, alive = started(FOLDER), started(FOLDER)
    try:
        killed.kill()
        killed.wait()
        with temporary_folder() as own:
            assert len(os.listdir(tmp_path)) == 2
            assert own.parent == tmp_path
        assert len(os.listdir(tmp_path)) == 1
    finally:
        alive.kill()
        alive.wait()


@pytest.mark.parametrize(("age_s", "stays"), [(0, True), (100_000, False)])
def test_what_another_machine_writes_stays_for_a_day(tmp_path, age_s, stays):
    foreign = tmp_path / ".a.pt.00000000-abcdefgh.tmp"
    foreign.write_bytes(b"half")
    os.utime(foreign, (time.time() - age_s,) * 2)
    write_atomic(tmp_path / "a.pt", b"new")
    assert foreign.exists() == stays


def test_other_files_stay_whatever_their_names_end_in(tmp_path, monkeypatch):
    machine = atomic._machine_id()
    others = [
        ".a.pt.abcdefgh.tmp",
        "a.pt.tmp",
        f".{machine}-abcdefgh.tmp",
        f"a.{machine}-abcdefgh.tmp",
    ]
    for name in others:
        (tmp_path / name).write_bytes(b"precious")
    (tmp_path / f".a.pt.{machine}-folder__.tmp").mkdir()
    (tmp_path / f".a.pt.{machine}-link____.tmp").symlink_to(tmp_path / others[0])
    before = set(os.listdir(tmp_path))
    write_atomic(tmp_path / "a.pt", b"new")
    assert set(os.listdir(tmp_path)) == before | {"a.pt"}


@pytest.mark.parametrize(
    "name", ["n" * 255, "n" * 230 + ".pt", "ü" * 120 + ".pt", "m\udce9.pt", "a\nb.pt"]
)
def test_any_name_that_a_file_may_have_can_be_written(tmp_path, name):
    path = tmp_path / name
    require_writable(path)
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert len(os.listdir(tmp_path)) == 1


def test_names_that_no_file_may_have_are_refused_before_any_work(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "b")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    for name in ("a", "n" * 256, "a\0b"):
        with pytest.raises(FertoolError, match="cannot write"):
            require_writable(tmp_path / name)


def test_an_input_that_leads_nowhere_is_left_to_its_reader(tmp_path):
    (tmp_path / "a").symlink_to(tmp_path / "a")
    require_writable(tmp_path / "out.pt", tmp_path / "a", tmp_path / "missing")


def test_a_pipe_is_no_place_for_a_result(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(FertoolError, match="is not a regular file"):
        require_writable(tmp_path / "pipe")
