"""The budget of latency that the clock corrects."""

from types import SimpleNamespace

import pytest
import torch

from fertool.config.pruning import SelectionConfig
from fertool.graph.channels import trace_channels
from fertool.models import create
from fertool.pruning import Constraints, Targets
from fertool.pruning.latency_model import typical_latency
from fertool.spec import InputSpec
from fertool.workflows import latency_budget


@pytest.fixture
def clock(monkeypatch):
    """A clock that always says that the cut network takes 0.3 of the time.

    Returns the number of its readings.
    """
    readings = []

    def bench(*networks, reporter):
        readings.append(networks)
        return SimpleNamespace(comparisons=(SimpleNamespace(speedup=1 / 0.3),))

    monkeypatch.setattr(latency_budget, "bench_networks", bench)
    return readings


# A network of coarse widths may leave part of a budget by the table unused: alone that is no reason
# to stop.
@pytest.mark.parametrize(("macs", "readings"), [(0.3, 1), (None, latency_budget.ATTEMPTS)])
def test_a_network_that_another_budget_makes_fast_enough_is_not_timed_again(clock, macs, readings):
    torch.manual_seed(0)
    spec, module = create(
        "micro_expnet", {"width_mult": 0.5}, InputSpec(size=32), ("angry", "happy", "sad")
    )
    table = typical_latency(trace_channels(module).layers)
    targets = Targets(macs=macs) if macs else None
    found = latency_budget.fit_latency_budget(
        0.5, spec, module, Constraints(targets, latency=table), SelectionConfig(), None
    )
    assert found.targets.macs == macs
    assert len(clock) == readings
