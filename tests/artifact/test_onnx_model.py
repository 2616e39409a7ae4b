"""ONNX files as messages: entries of their metadata, and files that are none."""

import onnx
import pytest

from fertool.artifact.onnx_model import load_onnx_model, read_onnx_metadata
from fertool.errors import FertoolError


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "model.onnx"
    model = onnx.ModelProto(ir_version=8)
    for value in ("first", "second"):
        model.metadata_props.add(key="mine", value=value)
    path.write_bytes(model.SerializeToString())
    return path


def test_the_first_entry_of_a_key_is_read(path):
    assert load_onnx_model(path).ir_version == 8
    assert read_onnx_metadata(path, "mine") == "first"
    assert read_onnx_metadata(path, "other") is None


def test_a_file_of_another_kind_is_an_error_that_names_it(path):
    path.write_bytes(b"no protobuf")
    with pytest.raises(FertoolError, match=r"model\.onnx: not an ONNX file, or a truncated one"):
        load_onnx_model(path)


def test_text_that_is_not_utf_8_is_the_same_error(path):
    path.write_bytes(path.read_bytes().replace(b"first", b"\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(FertoolError, match="not an ONNX file"):
        read_onnx_metadata(path, "mine")
