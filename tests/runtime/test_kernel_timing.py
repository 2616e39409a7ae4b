import math

import onnx
import pytest

from fertool.runtime import kernel_timing
from fertool.runtime.environment import processor_kind
from fertool.runtime.kernel_timing import KINDS, time_kernel


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_kernel_is_timed_with_floats_and_with_integers(kind, monkeypatch):
    monkeypatch.setattr(kernel_timing, "_SECONDS", 0.0)
    sizes = (8, 8, 6) if kind.startswith("conv") else (8, 6)
    floats, integers = time_kernel(kind, sizes)
    assert 0 < floats < 0.1
    assert 0 < integers < 0.1


@pytest.mark.parametrize(
    ("kind", "sizes", "multiplications"),
    [
        ("conv1", (8, 16, 6), 8 * 16 * 36),
        ("conv3", (8, 16, 6), 8 * 16 * 36 * 9),
        ("depthwise5", (8, 6), 8 * 36 * 25),
        ("linear", (8, 16), 8 * 16),
    ],
)
def test_the_time_is_that_of_one_kernel(monkeypatch, kind, sizes, multiplications):
    monkeypatch.setattr(kernel_timing, "_fastest_run", lambda content: _microseconds(content, 6))
    floats, integers = time_kernel(kind, sizes)
    assert floats == pytest.approx(1e-6 * multiplications)
    assert integers == pytest.approx(1e-6 * multiplications)


def _microseconds(content: bytes, side: int) -> float:
    """Return the seconds of a machine that takes a microsecond for each multiplication."""
    graph = onnx.load_from_string(content).graph
    sizes = {tensor.name: math.prod(tensor.dims) for tensor in graph.initializer}
    total = 0
    for node in graph.node:
        if node.op_type == "DequantizeLinear":
            sizes[node.output[0]] = sizes.get(node.input[0], 0)
        elif node.op_type == "Conv":
            total += sizes[node.input[1]] * side**2
        elif node.op_type == "Gemm":
            total += sizes[node.input[1]]
    return 1e-6 * total


def test_a_kind_of_processor_has_a_name():
    assert processor_kind()
