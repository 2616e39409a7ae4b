import os
import signal
from contextlib import nullcontext

import pytest
from torch.distributed import HashStore

from fertool.cli import app, processes
from fertool.cli.processes import MultiProcessRun, Outcome
from fertool.workflows import processes as launched
from fertool.workflows.processes import process_count, require_one_process


@pytest.fixture
def several(monkeypatch):
    """Say that a launcher has started this process as one of four."""

    def start(rank=0):
        found = {
            "RANK": rank,
            "WORLD_SIZE": 4,
            "LOCAL_WORLD_SIZE": 4,
            "MASTER_ADDR": "localhost",
            "MASTER_PORT": 1,
        }
        for name, value in found.items():
            monkeypatch.setenv(name, str(value))

    return start


@pytest.fixture
def crew(several):
    """Make the processes of one command, which share a store.

    One that ends stops listening to the launcher.
    """
    before, store = signal.getsignal(signal.SIGTERM), HashStore()

    def make(rank, connected=True):
        several(rank)
        made = MultiProcessRun()
        made._store = store if connected else None
        return made

    yield make
    signal.signal(signal.SIGTERM, before)


def test_one_process_tells_what_failed_and_all_end_with_its_code(crew):
    told = []
    assert crew(2).report(Outcome(2, "no such data", "check it"), told.append) == 2
    assert crew(0).report(Outcome(1, "another process has ended", "run again"), told.append) == 2
    assert [outcome.message for outcome in told] == ["no such data"]
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_IGN


def test_success_is_told_by_nobody(crew):
    told = []
    assert crew(1).report(Outcome(0), told.append) == 0
    assert crew(0).report(Outcome(1, "no space"), told.append) == 1
    assert len(told) == 1


def test_the_first_process_tells_when_the_one_that_would_is_gone(crew, monkeypatch):
    monkeypatch.setattr(processes, "_REPORT_TIMEOUT_S", 0.1)
    told = []

    def die(outcome):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        crew(3).report(Outcome(1, "out of memory"), die)
    for rank in (0, 1):
        assert crew(rank).report(Outcome(1, f"{rank} says"), told.append) == 1
    assert [outcome.message for outcome in told] == ["0 says"]


def test_a_failure_before_the_processes_have_met_is_told(crew):
    told = []
    assert crew(0, connected=False).report(Outcome(2, "bad"), told.append) == 2
    assert len(told) == 1


@pytest.mark.parametrize(
    "command",
    [
        "show a.pt",
        "eval a.pt --data synth",
        "quantize a.pt --data synth",
        "hessian-sensitivity a.pt --data synth",
        "export a.pt",
        "bench a.pt",
        "data info --data synth",
        "train-teacher --data synth --save-logits b.logits",
        "prune a.pt --target-flops 0.5",
        "prune a.pt --target-flops 0.5 --data synth --epochs 2 --dry-run",
    ],
)
def test_what_does_not_train_is_for_one_process(several, monkeypatch, tmp_path, command):
    several()
    monkeypatch.chdir(tmp_path)
    outcome = app._outcome(command.split(), nullcontext())
    assert outcome.code == 2
    assert "runs in one process, not in 4" in outcome.message


def test_one_process_may_do_anything():
    require_one_process("show")
    assert process_count() == 1


def test_each_process_gets_its_share_of_the_cores_unless_the_user_has_said_how_many(
    several, monkeypatch, tmp_path
):
    several()
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(11)), raising=False)
    environment = tmp_path / "environ"
    monkeypatch.setattr(launched, "Path", lambda path: environment)
    environment.write_bytes(b"HOME=/\0PATH=/bin\0")
    assert launched.threads_per_process() == 2
    environment.write_bytes(b"HOME=/\0OMP_NUM_THREADS=1\0")
    assert launched.threads_per_process() is None
    environment.unlink()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launched.threads_per_process() is None
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert launched.threads_per_process() == 2
