import pytest

from fertool.artifact.trailer import append_trailer, read_trailer, verify_trailer
from fertool.errors import FertoolError


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "model.any"
    path.write_bytes(b"\x00content")
    companion = tmp_path / "model.bin"
    companion.write_bytes(b"weights")
    append_trailer(path, '{"a": "--> é"}', [companion])
    return path, companion


def test_header_and_content_come_back(file):
    path, companion = file
    assert read_trailer(path) == '{"a": "--> é"}'
    assert path.read_bytes().startswith(b"\x00content\n<!-- fertool ")
    verify_trailer(path, [companion])


@pytest.mark.parametrize("position", [0, 4, 30, -3])
def test_any_other_byte_is_found(file, position):
    path, companion = file
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(FertoolError):
        verify_trailer(path, [companion])


@pytest.mark.parametrize("content", [b"", b"x" * 300, b" " + b"0" * 64 + b" 999999999 -->\n"])
def test_other_files_have_no_header(tmp_path, content):
    path = tmp_path / "model.any"
    path.write_bytes(content)
    with pytest.raises(FertoolError, match="no header of fertool"):
        read_trailer(path)
