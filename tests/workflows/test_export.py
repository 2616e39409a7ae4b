"""Exporting as a function: the same file as the command, models in memory, nothing printed."""

import copy

import pytest
import torch

from fertool.errors import FertoolError, UsageError
from fertool.workflows.data import open_data
from fertool.workflows.export import export
from fertool.workflows.model import load
from fertool.workflows.quantize import quantize


def test_the_function_writes_the_bytes_of_the_command(fertool, small, tmp_path, capsys):
    model = load(small)
    made = export(model, tmp_path / "a.onnx", opset=17, simplify=False)
    assert capsys.readouterr() == ("", "")
    assert made.parity.ok
    assert made.path == tmp_path / "a.onnx"
    assert made.size_bytes == made.path.stat().st_size
    assert made.spec == model.spec
    command = ("export", small, "-o", tmp_path / "b.onnx", "--opset", 17, "--no-simplify")
    assert fertool(*command)[0] == 0
    assert (tmp_path / "b.onnx").read_bytes() == made.path.read_bytes()


def test_a_quantized_model_need_not_be_a_file(small, tmp_path):
    data = open_data("synth:140")
    options = {"calibration_images": 16, "bench": False}
    made = quantize(load(small), data, **options)
    state = copy.deepcopy(made.module.state_dict())
    export(made, tmp_path / "a.onnx", data=data)
    assert all(torch.equal(state[name], value) for name, value in made.module.state_dict().items())
    made.save(tmp_path / "q.pt")
    export(load(tmp_path / "q.pt"), tmp_path / "b.onnx", data=data)
    assert (tmp_path / "b.onnx").read_bytes() == (tmp_path / "a.onnx").read_bytes()


def test_a_network_in_training_mode_is_compared_as_it_is_exported(small, tmp_path):
    model = load(small)
    model.module.train()
    assert export(model, tmp_path / "a.onnx", simplify=False).parity.ok
    assert model.module.training


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("a.mlmodel", {}, "no format has the suffix '.mlmodel'"),
        ("a.onnx", {"opsett": 17}, "unknown option 'opsett'"),
        ("a.onnx", {"opset": 12}, "``opset=12``: must be 13 or more and at most 20"),
        ("a.onnx", {"opset": 17, "packed": True}, "``packed=True`` with ``opset=17``"),
    ],
)
def test_a_wrong_option_is_named_and_leaves_nothing(small, tmp_path, name, options, message):
    with pytest.raises(UsageError) as error:
        export(load(small), tmp_path / name, **options)
    assert message in error.value.message
    assert list(tmp_path.iterdir()) == []


def test_the_model_is_not_replaced(small):
    with pytest.raises(FertoolError):
        export(load(small), small, format="onnx")


ANOTHER = """
from fertool.exporting import export_model, open_onnx
from fertool.formats.format import Format


class Member(Format):
    \"\"\"An ONNX file in a wrapper, and a text beside it.\"\"\"

    suffix = ".wrapped"
    runtime = "onnxruntime"

    def write(self, path, spec, module, options, on_note=lambda note: None):
        path.write_bytes(b"wrapped" + export_model(spec, module, options))
        path.with_suffix(".txt").write_text(spec.arch)

    def open(self, path):
        return open_onnx(path.read_bytes().removeprefix(b"wrapped"))

    def read_header(self, path):
        raise NotImplementedError
"""


def test_a_format_of_another_package_is_written_and_compared(small, install, tmp_path):
    install("fertool.formats", "wrapped", ANOTHER)
    model = load(small)
    made = export(model, tmp_path / "a.wrapped", simplify=False)
    assert made.parity.ok
    assert made.path.read_bytes().startswith(b"wrapped")
    assert (tmp_path / "a.txt").read_text() == model.spec.arch
    with pytest.raises(UsageError) as raised:
        export(model, tmp_path / "a.other")
    assert "or .wrapped" in raised.value.hint
