import os
import tracemalloc
from pathlib import PureWindowsPath

import pytest

from fertool.data import text_files
from fertool.data.text_files import LONGEST_LINE, read_lines, read_text_lines, require_path_inside
from fertool.errors import FertoolError


def test_lines_are_those_of_the_file(tmp_path):
    content = b"a\nb\r\n\nlast"
    (tmp_path / "a.csv").write_bytes(content)
    assert b"".join(read_lines(tmp_path / "a.csv")) == content
    assert len(list(read_lines(tmp_path / "a.csv"))) == 4


def test_a_line_without_end_is_refused_with_little_memory(tmp_path):
    with open(tmp_path / "a.csv", "wb") as file:
        file.write(b"first\n")
        file.truncate(3_000_000_000)
    tracemalloc.start()
    with pytest.raises(FertoolError, match=r"a\.csv:2: a line of more than"):
        list(read_lines(tmp_path / "a.csv"))
    assert tracemalloc.get_traced_memory()[1] < 4 * LONGEST_LINE
    tracemalloc.stop()


@pytest.mark.parametrize("kind", ["fifo", "device", "link to a device", "folder", "missing"])
def test_what_is_no_regular_file_is_refused_unread(tmp_path, kind):
    path = tmp_path / "a.csv"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "folder":
        path.mkdir()
    elif kind == "device":
        path = type(path)("/dev/zero")
    with pytest.raises(FertoolError):
        list(read_lines(path))


def test_text_keeps_bytes_that_are_no_utf8_for_the_names_of_files(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfname \xe9\n")
    assert [os.fsencode(line) for line in read_text_lines(tmp_path / "a.txt")] == [b"name \xe9\n"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../a.png", "a/../../b.png", "..", "", ".", "a\0.png", "a" * 2000]
)
def test_a_path_that_leads_out_of_the_data_set_is_refused(name):
    with pytest.raises(FertoolError, match=r"^list\.csv:7: ") as error:
        require_path_inside(name, "list.csv:7")
    assert len(error.value.message) < 200


@pytest.mark.parametrize("name", ["a.png", "1/a.png", "./a.png", "a..b/..c.png"])
def test_a_path_inside_is_taken(name):
    require_path_inside(name, "list.csv:7")


@pytest.mark.parametrize(
    "name", ["C:a.png", "C:\\a.png", "\\a.png", "a\\..\\..\\b.png", "\\\\host\\share\\b.png"]
)
def test_on_windows_a_path_leads_out_in_more_ways(name, monkeypatch):
    require_path_inside(name, "list.csv:7")
    monkeypatch.setattr(text_files, "PurePath", PureWindowsPath)
    with pytest.raises(FertoolError, match=r"^list\.csv:7: "):
        require_path_inside(name, "list.csv:7")
