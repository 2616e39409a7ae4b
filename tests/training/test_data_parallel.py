"""Three processes train as one does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from parallel_runs import CASES, IMAGES, PROCESSES, train

from fertool import distributed
from fertool.training.data_parallel import shard_batch

SCRIPT = Path(__file__).with_name("parallel_runs.py")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What each of the processes came to, and where."""
    folder = tmp_path_factory.mktemp("parallel")
    launcher = (
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(PROCESSES),
    )
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    ended = subprocess.run(
        [*launcher, SCRIPT, folder], env=environment, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    return [torch.load(folder / f"{rank}.pt") for rank in range(PROCESSES)], folder


def assert_alike(first, second, tolerance):
    """The same course and the same network, up to rounding."""
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_as_one_does(made, case):
    assert_alike(made[0][0][case], train(case), {"half": 0.02, "few images": 2e-3}.get(case, 3e-5))


def test_without_batch_norm_next_to_nothing_differs(made):
    (several, _), (one, _) = made[0][0]["many passes a step"], train("many passes a step")
    torch.testing.assert_close(several, one, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", [*CASES, "resumed"])
def test_all_processes_have_the_same_weights(made, case):
    (state, history), *others = [process[case] for process in made[0]]
    for other, its_history in others:
        assert history == its_history
        assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_a_killed_run_ends_with_the_bytes_of_an_undisturbed_one(made):
    (state, history), (other, its_history) = made[0][0]["batch norm"], made[0][0]["resumed"]
    assert history == its_history
    assert all(torch.equal(tensor, other[name]) for name, tensor in state.items())


def test_one_process_resumes_a_run_of_three(made):
    results, folder = made
    assert_alike(results[0]["batch norm"], train("batch norm", resume=folder / "begun"), 3e-5)


def test_each_image_is_seen_once_in_an_epoch(made):
    for epoch in range(2):
        parts = [process["seen"][epoch] for process in made[0]]
        # All three processes compute the last batch, of two images, with a third of the weight.
        ends = [part[-2:] for part in parts]
        assert ends[0] == ends[1] == ends[2]
        assert sorted(sum((part[:-2] for part in parts), ends[0])) == list(range(IMAGES))


def test_the_first_process_decodes_the_data_and_the_others_find_it(made):
    assert [process["turns"] for process in made[0]] == [False, "decoded", "decoded"]


def test_processes_that_do_not_do_the_same_are_refused(made):
    for process in made[0]:
        network, seed, resume, batch = process["errors"]
        assert "differ in their options, data, weights" in network == seed == resume
        assert batch == "``batch_size=2``: fewer images than the 3 processes"


@pytest.fixture
def each(monkeypatch):
    """Let this process be each of several."""

    def ranks(size):
        monkeypatch.setattr(distributed, "world_size", lambda: size)
        for rank in range(size):
            monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
            yield rank

    return ranks


@pytest.mark.parametrize(("count", "size"), [(7, 2), (64, 3), (4, 4), (3, 3), (100, 8)])
def test_the_parts_of_a_batch_make_it_up(each, count, size):
    parts = [shard_batch(count, torch.device("cpu")) for _ in each(size)]
    assert torch.cat([part.positions[1:] for part, _ in parts]).tolist() == list(range(count))
    for part, counted in parts:
        assert part.positions[0] == (part.positions[1] - 1) % count
        assert part.size == count
        assert abs(counted - count / size) < 1
        assert counted == len(part.positions) - 1


def test_a_batch_with_fewer_images_than_ranks_is_computed_by_all(each):
    assert [shard_batch(2, torch.device("cpu")) for _ in each(4)] == [(None, 0.5)] * 4


def test_a_single_process_has_the_whole_batch():
    assert shard_batch(5, torch.device("cpu")) == (None, 5)
    assert distributed.shard_bounds(5) == (0, 5)
