"""Peak memory of one model file, measured in a process that does nothing else.

`python -m fertool.runtime.memory FILE` opens the file, runs it a few times and writes JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from fertool.errors import FertoolError
from fertool.runtime.sessions import open_predictor

RUNS = 5
"""Passes before reading the peak: the runtimes' arenas stop growing after the first."""


def peak_memory(
    path: Path,
    *,
    threads: int = 1,
    batch_size: int = 1,
    classes: tuple[str, ...] | None = None,
    input_size: int | None = None,
) -> int:
    """Return the peak resident bytes of a new process that runs a model file.

    They include the Python interpreter, NumPy, the runtime library, weights, work space and one batch of pixels;
    nothing is subtracted. Raises FertoolError when that process fails, for example for lack of memory.
    """
    command = [sys.executable, "-m", __name__, str(path), "--threads", str(threads), "--batch-size", str(batch_size)]
    command += ["--classes", ",".join(classes)] if classes else []
    command += ["--input-size", str(input_size)] if input_size else []
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    if child.returncode:
        last = child.stderr.strip().rpartition("\n")[2]
        reason = f"exit code {child.returncode}" + (f": {last}" if last else "")
        raise FertoolError(
            f"{path}: the process that measures its memory failed ({reason})", "leave it out with --no-memory"
        )
    return int(json.loads(child.stdout)["peak_rss_bytes"])


def peak_rss_bytes() -> int:
    """Return the most resident memory that this process ever had.

    On Linux from VmHWM: ru_maxrss starts at the size of the process that started this one (getrusage(2) keeps it
    across fork and exec), so a large parent would be reported in place of a small child.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Measure the file named on the command line; see `peak_memory`."""
    parser = argparse.ArgumentParser(prog="python -m fertool.runtime.memory", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--classes", type=lambda text: tuple(text.split(",")))
    parser.add_argument("--input-size", type=int)
    given = parser.parse_args()
    predictor = open_predictor(given.file, threads=given.threads, classes=given.classes, input_size=given.input_size)
    side = predictor.input.size
    forward = predictor.run_once(np.zeros((given.batch_size, predictor.input.channels, side, side), dtype=np.uint8))
    for _ in range(RUNS):
        forward()
    sys.stdout.write(json.dumps({"peak_rss_bytes": peak_rss_bytes()}))


if __name__ == "__main__":
    main()
