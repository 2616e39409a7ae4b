import subprocess
import sys

import pytest

from fertool.cli import app

CODE = """
import resource
from fertool.cli.allocator import keep_freed_memory
if {keep}:
    keep_freed_memory()
import torch
def faults(rows):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(rows, 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
# Each a little smaller, so that it fits into the memory of the one before,
# whatever lies behind that.
print([faults(rows) for rows in (64, 63, 62, 61)][-1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_memory_that_a_step_frees_costs_the_next_one_no_new_pages():
    again = [
        int(
            subprocess.run(
                [sys.executable, "-c", CODE.format(keep=keep)], capture_output=True, check=True
            ).stdout
        )
        for keep in (False, True)
    ]
    # 256 MiB are 65,536 pages of 4 KiB, or 128 huge ones.
    assert again[0] > 100
    assert again[1] < again[0] / 10


@pytest.mark.parametrize(
    ("command", "count"), [("train-teacher", 1), ("distill", 1), ("prune", 1), ("show", 0)]
)
def test_only_commands_that_train_change_the_allocator(command, count, monkeypatch):
    calls: list[str] = []
    monkeypatch.setattr(app, "keep_freed_memory", lambda: calls.append(command))
    assert app.run([command, "--no-such-option"]) == 2
    assert len(calls) == count
