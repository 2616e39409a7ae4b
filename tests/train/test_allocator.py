import subprocess
import sys

import pytest

CODE = """
import resource
from fertool.train.allocator import keep_freed_memory
if {keep}:
    keep_freed_memory()
import torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64, 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print([faults() for _ in range(4)][-1])
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
