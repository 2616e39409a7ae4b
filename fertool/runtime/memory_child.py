"""The process that `fertool.runtime.memory` starts: run one model file a few times and tell the peak memory.

By hand: `python -m fertool.runtime.memory_child FILE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import numpy as np

from fertool.runtime.sessions import open_predictor

RUNS = 5
"""Passes before reading the peak: the runtimes' arenas stop growing after the first."""


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
    """Measure the file named on the command line; JSON on stdout."""
    parser = argparse.ArgumentParser(prog="python -m fertool.runtime.memory_child", description=__doc__)
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
