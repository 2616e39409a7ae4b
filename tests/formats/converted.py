"""What every format that a converter writes has to do."""

import pytest

from fertool.artifact.header import read_spec
from fertool.config.benchmark import BenchConfig
from fertool.config.exporting import ExportConfig
from fertool.errors import FertoolError
from fertool.exporting import check_parity
from fertool.formats.format import load_format
from fertool.runtime import bench, open_predictor

PLAIN = ExportConfig(simplify=False)


def require_same_logits(name, network, images, folder):
    """Write a network and compare header and logits; returns the path."""
    spec, module = network
    format = load_format(name)
    path = folder / f"model{format.suffix}"
    format.write(path, spec, module, PLAIN)
    assert read_spec(path) == spec
    assert check_parity(format.open(path), module, spec, images).ok
    return path


def require_bench(path, runtime):
    (result,) = bench([path], BenchConfig(warmup=1, runs=3, memory=False, starts=0)).results
    assert result.runtime == runtime
    assert result.size_bytes >= path.stat().st_size


def require_refusal(name, network, folder, message):
    format = load_format(name)
    path = folder / f"refused{format.suffix}"
    with pytest.raises(FertoolError, match=message) as raised:
        format.write(path, *network, config=PLAIN)
    assert ".onnx" in raised.value.hint
    assert not path.exists()


def require_digest(path):
    """Damage a file whose trailer has a digest."""
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    with pytest.raises(FertoolError, match="does not match the digest"):
        open_predictor(path)
