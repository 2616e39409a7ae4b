import pytest
import torch

from fertool.artifact.header import read_spec
from fertool.config.exporting import ExportConfig
from fertool.errors import FertoolError
from fertool.formats.format import load_format
from fertool.models import create
from fertool.spec import InputSpec


@pytest.fixture
def written(tmp_path):
    """Return a network, its ONNX file and the format that has written it."""
    torch.manual_seed(0)
    spec, module = create("micro_expnet", {"width_mult": 0.25}, InputSpec(size=32), ("a", "b"))
    path = tmp_path / "model.ONNX"
    onnx = load_format("onnx")
    onnx.write(path, spec, module.eval(), ExportConfig(simplify=False))
    return spec, module, path, onnx


def test_a_file_is_told_by_its_suffix_and_carries_the_spec(written):
    spec, _, path, _ = written
    assert read_spec(path) == spec


def test_a_file_computes_the_logits_of_its_module(written):
    spec, module, path, onnx = written
    images = torch.randint(0, 256, (4, 1, 32, 32), dtype=torch.uint8)
    scale = torch.tensor(spec.input.scale).view(1, -1, 1, 1)
    inputs = scale * (images - torch.tensor(spec.input.zero_point).view(1, -1, 1, 1))
    with torch.no_grad():
        torch.testing.assert_close(onnx.open(path)(images), module(inputs), rtol=0, atol=1e-4)


def test_another_kind_of_file_is_an_error(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"not a graph")
    with pytest.raises(FertoolError, match="not an ONNX file"):
        read_spec(path)


ANOTHER = '''
class Member:
    """A text with nothing but the header."""

    suffix = ".header"
    runtime = "none"

    def read_header(self, path):
        return path.read_text()
'''


def test_the_header_of_a_format_of_another_package_is_read(written, install, tmp_path):
    install("fertool.formats", "header", ANOTHER)
    spec, *_ = written
    path = tmp_path / "model.header"
    path.write_text(spec.to_json())
    assert read_spec(path) == spec
