"""Damaged files of every format through every command that reads them; `run.py` beside it runs more
of them.
"""

import os
import subprocess
import sys
from pathlib import Path

SEED = os.environ.get("FERTOOL_HOSTILE_SEED", "16")
FILES = os.environ.get("FERTOOL_HOSTILE_FILES", "800")


def test_no_damaged_file_ends_in_a_traceback_fills_the_memory_or_touches_another():
    # A process of its own: only one without threads can be forked safely.
    command = [sys.executable, Path(__file__).with_name("run.py"), "--seed", SEED, "--count", FILES]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    print(ended.stdout)
    assert ended.returncode == 0, ended.stdout[-10_000:] + ended.stderr[-2_000:]
