import numpy as np
import pytest
import torch

from fertool.artifact.header import read_spec
from fertool.config.benchmark import BenchConfig
from fertool.config.exporting import ExportConfig
from fertool.errors import FertoolError, UsageError
from fertool.exporting import check_parity, export_model, open_onnx
from fertool.formats.format import load_format
from fertool.runtime import bench, open_predictor

PLAIN = ExportConfig(simplify=False)


@pytest.mark.parametrize("kind", ["float", "int8", "dynamic"])
def test_a_file_has_the_header_and_the_logits_of_the_onnx_file(networks, images, tmp_path, kind):
    spec, module = networks[kind]
    path = tmp_path / "model.ort"
    load_format("ort").write(path, spec, module, PLAIN)
    assert read_spec(path) == spec
    logits = load_format("ort").open(path)(images)
    expected = open_onnx(export_model(spec, module, PLAIN))(images)
    if kind == "int8":
        # The layers ahead of the integers are floats, in other kernels: a last bit of theirs can
        # make another integer.
        equal = (logits == expected).all(1).float().mean()
        assert equal >= 0.9
    else:
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-4)
    assert check_parity(load_format("ort").open(path), module, spec, images).ok


def test_a_dynamic_file_tells_the_profiles(networks, images, tmp_path):
    path = tmp_path / "model.ort"
    load_format("ort").write(path, *networks["dynamic"], config=PLAIN)
    profiles = open_predictor(path).choose_profile(images.numpy())
    assert profiles.shape == (len(images),)


def test_bench_takes_the_file(networks, tmp_path):
    path = tmp_path / "model.ort"
    load_format("ort").write(path, *networks["int8"], config=PLAIN)
    (result,) = bench([path], BenchConfig(warmup=1, runs=3, memory=False, starts=0)).results
    assert result.runtime == "onnxruntime"
    assert result.quantized


def test_packed_weights_are_refused(networks, tmp_path):
    with pytest.raises(UsageError, match=r"``packed=True``: an .ort file") as raised:
        load_format("ort").write(
            tmp_path / "a.ort", *networks["int8"], config=ExportConfig(packed=True)
        )
    assert ".onnx" in raised.value.hint


def test_damage_is_found(networks, tmp_path):
    path = tmp_path / "model.ort"
    load_format("ort").write(path, *networks["float"], config=PLAIN)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(FertoolError, match="does not match its digest"):
        open_predictor(path)


def test_another_kind_of_file_is_an_error(tmp_path):
    path = tmp_path / "model.ort"
    path.write_bytes(np.arange(100, dtype=np.uint8).tobytes())
    with pytest.raises(FertoolError, match="no header of fertool"):
        read_spec(path)
