"""The process that `fertool.runtime.memory` starts: run one model file a few times and tell the peak memory.

By hand: `python -m fertool.runtime.memory_child FILE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from fertool.runtime.foreign import ForeignModel
from fertool.runtime.sessions import TIME_LIMIT_S, open_predictor

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
    parser = argparse.ArgumentParser(
        prog="python -m fertool.runtime.memory_child", description=__doc__
    )
    parser.add_argument("file", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument(
        "--foreign", type=_foreign, default=ForeignModel(), help="a ForeignModel as JSON"
    )
    parser.add_argument("--time-limit", type=float, default=TIME_LIMIT_S)
    given = parser.parse_args()
    predictor = open_predictor(
        given.file, threads=given.threads, foreign=given.foreign, time_limit_s=given.time_limit
    )
    side = predictor.input.size
    forward = predictor.run_once(
        np.zeros((given.batch_size, predictor.input.channels, side, side), dtype=np.uint8)
    )
    predictor.answer(forward, given.batch_size)
    for _ in range(RUNS - 1):
        forward()
    sys.stdout.write(json.dumps({"peak_rss_bytes": peak_rss_bytes()}))


def _foreign(text: str) -> ForeignModel:
    given: dict[str, Any] = json.loads(text)
    fields: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    return ForeignModel(**fields)


if __name__ == "__main__":
    main()
