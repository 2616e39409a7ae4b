import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fertool.artifact.atomic import require_writable, write_atomic
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
        "import sys, pathlib\nfrom fertool.artifact.atomic import write_atomic\nn = 0\nprint('go', flush=True)\n"
        "while True:\n    n += 1\n    write_atomic(pathlib.Path(sys.argv[1]), str(n % 10).encode() * 4_000_000)\n"
    )
    for delay in (0.001, 0.003, 0.007, 0.02, 0.05):
        process = subprocess.Popen([sys.executable, "-c", writer, str(path)], stdout=subprocess.PIPE)
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
    with pytest.raises(FertoolError, match="is also an input" if kind == "input" else "is a folder"):
        require_writable(target, source)
    assert source.read_bytes() == b"precious"


def test_a_place_that_cannot_become_a_folder_is_refused(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FertoolError, match="cannot write"):
        require_writable(tmp_path / "file" / "a.pt")


def test_a_device_is_not_replaced_by_a_file():
    with pytest.raises(FertoolError, match="/dev/null: is not a regular file"):
        require_writable(Path("/dev/null"))
