from types import SimpleNamespace

import pytest
import torch

from fertool import runtime
from fertool.models import create
from fertool.spec import InputSpec
from fertool.workflows.network_latency import bench_networks


@pytest.mark.parametrize(
    ("seconds", "runs"), [(0.0001, 600), (0.005, 500), (0.009, 200), (0.2, 100)]
)
def test_slow_networks_get_fewer_passes(seconds, runs, monkeypatch):
    asked = []

    def bench(files, config, images=None, on_progress=None):
        asked.append(config.runs)
        latency = SimpleNamespace(mean=seconds)
        return SimpleNamespace(results=[SimpleNamespace(latency_s=latency) for _ in files])

    monkeypatch.setattr(runtime, "bench", bench)
    torch.manual_seed(0)
    network = create("nano_resnet", {"width_mult": 0.25}, InputSpec(size=32), ("a", "b"))
    bench_networks(network, network)
    assert asked[-1] == runs
    assert len(asked) == 2
    assert asked[0] <= 10


def test_networks_are_compared_interleaved_and_against_the_first():
    torch.manual_seed(0)
    small = create("nano_resnet", {"width_mult": 0.25}, InputSpec(size=32), ("a", "b"))
    large = create("nano_resnet", {"width_mult": 1.5}, InputSpec(size=32), ("a", "b"))
    measured = bench_networks(large, small)
    assert len(measured.results) == 2
    (pair,) = measured.comparisons
    assert pair.speedup > 1
