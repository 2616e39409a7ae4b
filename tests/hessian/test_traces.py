"""Rounds, targets, killed runs, and what measuring leaves behind."""

import copy
import math
from typing import get_args
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from brute_force import (
    LABELS,
    TRACES,
    images,
    measure,
    small_net,
    values,
)
from torch import nn

from fertool.artifact.store import pack, unpack
from fertool.config.sensitivity import TraceConfig, TraceMethod
from fertool.errors import FertoolError, UsageError
from fertool.hessian import estimate_traces, traces


@pytest.mark.parametrize("method", ["probe", "hutchinson"])
def test_more_rounds_are_more_probes_and_the_error_falls_with_their_root(method):
    net, x = small_net(nn.Hardswish), images(8)
    one = measure(net, x, method=method, probes=8)
    found = measure(net, x, method=method, probes=8, target_error=1e-9, max_rounds=9)
    assert (found.samples, found.probes) == (8, 72)
    sem, sem_of_one = values(found, "weight_trace_sem"), values(one, "weight_trace_sem")
    ratio = sem[sem_of_one > 0] / sem_of_one[sem_of_one > 0]
    assert np.median(ratio) == pytest.approx(1 / 3, abs=0.06)


def test_it_stops_after_the_round_that_reaches_the_target():
    net, x = small_net(nn.Hardswish), images(40)
    errors = [measure(net, x[: 8 * rounds]).relative_error() for rounds in range(1, 6)]
    target = sorted(errors)[2] * (1 + 1e-9)
    first = next(index for index, error in enumerate(errors) if error <= target)
    found = measure(net, x, trace_images=8, target_error=target)
    assert found.samples == 8 * (first + 1)
    assert found.relative_error() == pytest.approx(errors[first], rel=1e-9)
    assert errors[first] <= target
    np.testing.assert_allclose(values(found), values(measure(net, x[: found.samples])), rtol=1e-10)


def test_it_stops_when_images_or_rounds_are_used_up():
    net, x = small_net(nn.ReLU), images(20)
    assert measure(net, x, trace_images=8, target_error=1e-9).samples == 20
    assert measure(net, x, trace_images=8, target_error=1e-9, max_rounds=2).samples == 16
    assert measure(net, x, trace_images=8).samples == 8


@pytest.mark.parametrize("options", [
    {"trace_images": 8, "target_error": 1e-9},
    {"method": "probe", "trace_images": 5, "target_error": 1e-9, "max_rounds": 3},
    {"method": "hutchinson", "probes": 3, "target_error": 1e-9, "max_rounds": 2},
    {"method": "hutchinson-masked", "trace_images": 2, "probes": 2},
], ids=lambda options: options.get("method", "exact"))  # fmt: skip
def test_a_killed_run_goes_on_and_ends_with_the_same_bytes(options, tmp_path, monkeypatch):
    class KilledError(Exception):
        pass

    monkeypatch.setattr(traces, "_SAVE_SECONDS", 0.0)
    net = nn.Sequential(nn.Conv2d(2, 3, 3), nn.Hardswish(), nn.Flatten(), nn.Linear(48, 4)).double()
    x, state = images(12), tmp_path / "x.json.resume"
    config = TraceConfig(**options, batch_size=4)
    seen: list[int] = []
    whole = estimate_traces(
        net, x, LABELS[:12], config, on_progress=lambda done, total: seen.append(done)
    )
    for stop in (seen[0], seen[len(seen) // 2], seen[-1]):

        def kill(done: int, total: int, stop: int = stop) -> None:
            if done == stop:
                raise KilledError

        with pytest.raises(KilledError):
            estimate_traces(net, x, LABELS[:12], config, resume=state, on_progress=kill)
        # The state is that of the pass before the one that reported last.
        again = Mock()
        resumed = estimate_traces(net, x, LABELS[:12], config, resume=state, on_progress=again)
        assert resumed.to_json() == whole.to_json()
        assert [call.args[0] for call in again.call_args_list] == seen[seen.index(stop) :]
        state.unlink()


def test_the_state_of_another_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(traces, "_SAVE_SECONDS", 0.0)
    net, x, state = small_net(nn.ReLU), images(4), tmp_path / "x.json.resume"
    estimate_traces(net, x, LABELS[:4], resume=state)
    for run in (
        (net, x + 1, TraceConfig()),
        (net, x, TraceConfig(seed=1)),
        (small_net(nn.ReLU, 1), x, TraceConfig()),
    ):
        with pytest.raises(FertoolError, match="of a run with other options, data or weights"):
            estimate_traces(run[0], run[1], LABELS[:4], run[2], resume=state)


@pytest.mark.parametrize(
    ("counts", "changed"),
    [
        ({"images": "x"}, {}),
        ({"images": 10**6}, {}),
        ({"passes": -1}, {}),
        ({"unknown": 1}, {}),
        ({}, {"total": torch.zeros(3)}),
        ({}, {"pass_total": torch.zeros(2, 9, 1).double()}),
        ({}, {"squares": torch.zeros(2, 7).int()}),
        ({}, {"noise": None}),
        ({}, {"total": torch.full((2, 30), math.nan).double()}),
    ],
)
def test_a_state_with_other_content_is_refused(tmp_path, monkeypatch, counts, changed):
    monkeypatch.setattr(traces, "_SAVE_SECONDS", 0.0)
    net, x, path = small_net(nn.ReLU), images(4), tmp_path / "x.json.resume"
    estimate_traces(net, x, LABELS[:4], resume=path)
    header, tensors = unpack(path)
    kept = {name: tensor for name, tensor in {**tensors, **changed}.items() if tensor is not None}
    path.write_bytes(pack({**header, **counts}, kept)[1])
    with pytest.raises(
        FertoolError, match=r"x\.json\.resume: the state of a killed run, but with other content"
    ):
        estimate_traces(net, x, LABELS[:4], resume=path)


def test_the_error_of_exact_traces_is_that_of_a_mean_over_images():
    net, x = small_net(nn.ReLU), images(5)
    found = measure(net, x, batch_size=2)
    for key in TRACES:
        single = np.array([values(measure(net, x[[i, i]]), key) for i in range(5)])
        np.testing.assert_allclose(values(found, key), single.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            values(found, f"{key}_sem"), single.std(0, ddof=1) / math.sqrt(5), rtol=1e-8
        )


@pytest.mark.parametrize("method", ["exact", "probe"])
def test_batches_do_not_change_the_result_but_the_seed_changes_probes(method):
    net, x = small_net(nn.ReLU), images(7)
    one = measure(net, x, method=method, seed=3)
    assert measure(net, x, method=method, seed=3) == one
    np.testing.assert_allclose(
        values(measure(net, x, method=method, seed=3, batch_size=3)), values(one), rtol=1e-10
    )
    other = measure(net, x, method=method, seed=4)
    assert (values(other) == values(one)).all() == (method == "exact")


def test_leaves_the_network_as_it_was():
    net = small_net(nn.ReLU).train()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[5].weight.grad = torch.ones_like(net[5].weight)
    before, x = copy.deepcopy(net), images(3)
    with torch.no_grad():
        for method in get_args(TraceMethod):
            measure(net, x, method=method, probes=2)
    assert [m.training for m in net.modules()] == [m.training for m in before.modules()]
    assert not x.requires_grad
    for (name, now), then in zip(net.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(now, then), name
        assert now.requires_grad == then.requires_grad
        assert (now.grad is None) == (name != "5.weight")
    assert torch.equal(net[5].weight.grad, torch.ones_like(net[5].weight))
    assert all(torch.equal(a, b) for a, b in zip(net.buffers(), before.buffers(), strict=True))
    assert not any(m._forward_hooks for m in net.modules())


def test_reports_progress_up_to_the_whole():
    seen = []
    estimate_traces(
        *(small_net(nn.ReLU), images(5), LABELS[:5], TraceConfig(batch_size=2)),
        on_progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (20, 20)  # 5 images, 4 classes
    assert seen == sorted(set(seen))


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"method": "lanczos"}, "``method``"),
        ({"method": "probe", "probes": 1}, "``probes=1``"),
        ({"max_rounds": 0}, "``max_rounds=0``"),
        ({"target_error": 0.0}, "``target_error=0.0``"),
        ({"target_error": math.nan}, "``target_error=nan``"),
    ],
)
def test_wrong_options_are_named(options, named):
    with pytest.raises(UsageError, match=named):
        TraceConfig(**options)


def test_one_image_is_not_enough_for_an_error():
    with pytest.raises(UsageError, match="``trace_images=1``"):
        measure(small_net(nn.ReLU), images(1))


def test_networks_without_a_formula_are_named():
    shared = nn.Linear(4, 4)
    with pytest.raises(FertoolError, match="layer 0 does not run once"):
        measure(nn.Sequential(shared, nn.ReLU(), shared), torch.zeros(2, 4))
    with pytest.raises(FertoolError, match="layer 0: no trace for Conv1d"):
        measure(nn.Sequential(nn.Conv1d(1, 1, 1)), torch.zeros(2, 1, 4))
    with pytest.raises(FertoolError, match="no float convolution"):
        measure(nn.ReLU(), torch.zeros(2, 4))


def test_traces_that_are_not_finite_name_the_layer():
    net = small_net(nn.ReLU)
    with torch.no_grad():
        net[12].weight[0, 0] = math.nan
    with pytest.raises(FertoolError, match="not finite"):
        measure(net, images(2))
