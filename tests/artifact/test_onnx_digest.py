import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.helper import make_graph, make_model, make_node, make_tensor_value_info

from fertool.artifact.onnx_digest import DIGEST_KEY, append_digest, verify_digest
from fertool.errors import FertoolError


@pytest.fixture(scope="module")
def content():
    ends = [make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    model = make_model(make_graph([make_node("Relu", ["x"], ["y"])], "g", ends[:1], ends[1:]))
    model.metadata_props.add(key="fertool", value="{}")
    return model.SerializeToString()


def test_the_digest_is_an_entry_of_the_metadata_and_everything_else_stays(content):
    model = onnx.load_from_string(append_digest(content))
    assert [entry.key for entry in model.metadata_props] == ["fertool", DIGEST_KEY]
    del model.metadata_props[1:]
    assert model == onnx.load_from_string(content)


def test_no_bit_of_a_file_can_flip(content, tmp_path):
    path, whole = tmp_path / "m.onnx", np.frombuffer(append_digest(content), np.uint8)
    path.write_bytes(whole.tobytes())
    assert verify_digest(path)
    for position in range(len(whole)):
        damaged = whole.copy()
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged.tobytes())
        assert not accepted(path)


def accepted(path):
    """Whether a file counts as whole."""
    try:
        return verify_digest(path)
    except FertoolError:
        return False


def test_files_without_a_digest(content, tmp_path):
    path = tmp_path / "m.onnx"
    for other in (
        b"",
        b"short",
        content,
        append_digest(content)[:-1],
        append_digest(content) + b"x",
    ):
        path.write_bytes(other)
        assert not verify_digest(path)
    path.write_bytes(content + append_digest(content))
    with pytest.raises(FertoolError, match="damaged"):
        verify_digest(path)
