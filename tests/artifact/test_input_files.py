import os
import socket
from pathlib import Path

import pytest

from fertool.artifact.header import read_spec
from fertool.artifact.input_files import read_bytes, read_text, require_file
from fertool.artifact.store import file_digest, load
from fertool.errors import FertoolError


@pytest.fixture(params=["/dev/zero", "pipe", "socket", "folder", "loop", "long", "absent"])
def no_file(request, tmp_path, monkeypatch):
    path = tmp_path / request.param
    if request.param.startswith("/"):
        path = Path(request.param)
    elif request.param == "pipe":
        os.mkfifo(path)
    elif request.param == "socket":
        monkeypatch.chdir(tmp_path)  # addresses of sockets are short
        with socket.socket(socket.AF_UNIX) as here:
            here.bind("socket")
    elif request.param == "folder":
        path.mkdir()
    elif request.param == "loop":
        path.symlink_to(path)
    elif request.param == "long":
        path = tmp_path / ("x" * 5000)
    return path


@pytest.mark.parametrize(
    "read", [require_file, file_digest, read_spec, load, lambda path: read_text(path, 10)]
)
def test_only_regular_files_are_read(no_file, read):
    with pytest.raises(FertoolError) as caught:
        read(no_file)
    assert caught.value.message.startswith(f"{no_file}: ")
    assert caught.value.hint


def test_files_above_the_limit_and_other_encodings_are_refused(tmp_path):
    path = tmp_path / "f.txt"
    path.write_bytes(b"\xef\xbb\xbfabc")
    assert read_text(path, 6) == "abc"
    assert read_bytes(path, 6) == b"\xef\xbb\xbfabc"
    with pytest.raises(FertoolError, match=r"f\.txt: 6 bytes, more than the 5"):
        read_bytes(path, 5)
    path.write_bytes(b"ab\xff")
    with pytest.raises(FertoolError, match=r"f\.txt: not UTF-8 text \(byte 2\)"):
        read_text(path, 10)
