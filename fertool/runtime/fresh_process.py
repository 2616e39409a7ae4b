"""Memory, loading and first pass of a model file, in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError

_CHILD = "fertool.runtime.fresh_process_child"


@dataclass(frozen=True)
class FreshProcess:
    """What one new process measured.

    `load_s` are the seconds from the imported library to the opened file, its digest checked;
    `first_pass_s` those of the first pass. `peak_rss_bytes` contains the Python interpreter, NumPy,
    the runtime library, weights, work space and one batch of pixels; nothing is subtracted. None on
    systems that do not tell it (Windows).
    """

    peak_rss_bytes: int | None
    load_s: float
    first_pass_s: float


def run_fresh_process(
    path: Path,
    *,
    runtime: str | None = None,
    threads: int = 1,
    batch_size: int = 1,
    foreign: ForeignModel = ForeignModel(),
) -> FreshProcess:
    """Run a model file in a new process, and return what that measured.

    Raises FertoolError when that process fails, for example for lack of memory.
    """
    options = {
        "runtime": runtime,
        "threads": threads,
        "batch_size": batch_size,
        "foreign": asdict(foreign),
    }
    # A new interpreter and not a fork, which would start with this process's memory.
    command = [sys.executable, "-m", _CHILD, str(path), json.dumps(options)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        raise FertoolError(
            f"{path}: the process that measures its memory failed ({_failure(child)})",
            "free some memory, or lower ``batch_size``",
        )
    # Runtimes may print of themselves before it.
    return FreshProcess(**json.loads(child.stdout.rpartition("\n")[2]))


def _failure(child: subprocess.CompletedProcess[str]) -> str:
    """Return exit code and last line of a process, which has the message of a traceback."""
    # Negative for a signal, for example -9 from the kernel when memory is exhausted.
    code = f"exit code {child.returncode}"
    last_line = child.stderr.strip().rpartition("\n")[2]
    if not last_line:
        return code
    return f"{code}: {last_line}"
