"""Peak memory of one model file, measured in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from fertool.config.foreign_files import ForeignModel
from fertool.errors import FertoolError

_CHILD = "fertool.runtime.memory_child"


def peak_memory(
    path: Path,
    *,
    threads: int = 1,
    batch_size: int = 1,
    foreign: ForeignModel = ForeignModel(),
) -> int | None:
    """Return the peak resident bytes of a new process that runs a model file.

    They include the Python interpreter, NumPy, the runtime library, weights, work space and one
    batch of pixels; nothing is subtracted. None on systems that do not tell it (Windows). Raises
    FertoolError when that process fails, for example for lack of memory.
    """
    options = {
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
    peak: int | None = json.loads(child.stdout)["peak_rss_bytes"]
    return peak


def _failure(child: subprocess.CompletedProcess[str]) -> str:
    """Return exit code and last line of a process, which has the message of a traceback."""
    # Negative for a signal, for example -9 from the kernel when memory is exhausted.
    code = f"exit code {child.returncode}"
    last_line = child.stderr.strip().rpartition("\n")[2]
    if not last_line:
        return code
    return f"{code}: {last_line}"
