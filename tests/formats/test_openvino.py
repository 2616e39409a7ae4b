import pytest
from settled import patterns

from fertool.artifact.header import read_spec
from fertool.config.benchmark import BenchConfig
from fertool.config.exporting import ExportConfig
from fertool.errors import FertoolError, UsageError
from fertool.exporting import check_parity, export_model
from fertool.formats.format import load_format
from fertool.runtime import bench, open_predictor

pytest.importorskip("openvino", reason="the extra openvino is not installed")
PLAIN = ExportConfig(simplify=False)


@pytest.fixture
def written(networks, tmp_path):
    """Return the path of the float network's file."""
    path = tmp_path / "model.xml"
    load_format("openvino").write(path, *networks["float"], config=PLAIN)
    return path


@pytest.mark.parametrize("kind", ["float", "int8", "dynamic"])
def test_files_carry_the_header_and_give_the_logits_of_torch(networks, images, tmp_path, kind):
    spec, module = networks[kind]
    path = tmp_path / "model.xml"
    load_format("openvino").write(path, spec, module, PLAIN)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert read_spec(path) == spec
    parity = check_parity(load_format("openvino").open(path), module, spec, images)
    assert parity.ok
    assert parity.max_abs_diff <= 0.1 * parity.logit_scale


@pytest.mark.parametrize("kind", ["int8", "int8 cascade"])
def test_the_rounding_ahead_of_residual_sums_is_kept(networks, tmp_path, kind):
    spec, module = networks[kind]
    path = tmp_path / "model.xml"
    load_format("openvino").write(path, spec, module, PLAIN)
    images = patterns(60, seed=2).images
    parity = check_parity(load_format("openvino").open(path), module, spec, images)
    # OpenVINO drops it from ONNX files, where the difference is 0.04 of the scale.
    assert parity.max_abs_diff <= 0.03 * parity.logit_scale


def test_a_dynamic_file_tells_the_profiles(networks, images, tmp_path):
    path = tmp_path / "model.xml"
    load_format("openvino").write(path, *networks["dynamic"], config=PLAIN)
    profiles = open_predictor(path).choose_profile(images.numpy())
    assert profiles.shape == (len(images),)


def test_bench_measures_it_beside_others(written, networks):
    onnx = written.with_suffix(".onnx")
    onnx.write_bytes(export_model(*networks["float"], config=PLAIN))
    results = bench([onnx, written], BenchConfig(warmup=1, runs=3, memory=False, starts=0)).results
    assert [result.runtime for result in results] == ["onnxruntime", "openvino"]


def test_it_opens_onnx_files_too(written, networks, images):
    onnx = written.with_suffix(".onnx")
    spec, module = networks["int8"]
    onnx.write_bytes(export_model(spec, module, ExportConfig(simplify=False, packed=True)))
    logits = open_predictor(onnx, runtime="openvino").logits(images.numpy())
    expected = open_predictor(onnx).logits(images.numpy())
    assert (logits.argmax(1) == expected.argmax(1)).all()


def test_packed_weights_are_refused(networks, tmp_path):
    with pytest.raises(UsageError, match=r"``packed=True``: an .xml file"):
        load_format("openvino").write(
            tmp_path / "a.xml", *networks["int8"], config=ExportConfig(packed=True)
        )


def test_weights_of_another_export_are_found(written):
    weights = written.with_suffix(".bin")
    weights.write_bytes(weights.read_bytes()[:-4] + b"\0\0\0\1")
    with pytest.raises(FertoolError, match=r"model.xml and model.bin does not match the digest"):
        open_predictor(written)
    weights.unlink()
    with pytest.raises(FertoolError, match=r"model\.bin, which belongs to it"):
        open_predictor(written)


def test_a_truncated_file_is_an_error(written):
    written.write_bytes(written.read_bytes()[:-3])
    with pytest.raises(FertoolError, match="no header of fertool, or is truncated"):
        read_spec(written)
