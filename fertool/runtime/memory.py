"""Peak memory of one model file, measured in a process that does nothing else."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from fertool.errors import FertoolError
from fertool.runtime.foreign import ForeignModel
from fertool.runtime.sessions import TIME_LIMIT_S

_CHILD = "fertool.runtime.memory_child"


def peak_memory(
    path: Path,
    *,
    threads: int = 1,
    batch_size: int = 1,
    foreign: ForeignModel = ForeignModel(),
    time_limit_s: float = TIME_LIMIT_S,
) -> int:
    """Return the peak resident bytes of a new process that runs a model file.

    They include the Python interpreter, NumPy, the runtime library, weights, work space and one batch of pixels;
    nothing is subtracted. Raises FertoolError when that process fails, for example for lack of memory.
    """
    command = [
        sys.executable,
        "-m",
        _CHILD,
        str(path),
        "--threads",
        str(threads),
        "--batch-size",
        str(batch_size),
    ]
    command += ["--foreign", json.dumps(asdict(foreign)), "--time-limit", str(time_limit_s)]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        last = child.stderr.strip().rpartition("\n")[2]
        reason = f"exit code {child.returncode}" + (f": {last}" if last else "")
        raise FertoolError(
            f"{path}: the process that measures its memory failed ({reason})",
            "free some memory, or lower --batch-size",
        )
    return int(json.loads(child.stdout)["peak_rss_bytes"])
