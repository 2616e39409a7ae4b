"""The process started by `fertool.runtime.fresh_process`: runs one model file, prints figures.

By hand: `python -m fertool.runtime.fresh_process_child FILE`, with options as JSON behind it.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fertool.config.foreign_files import ForeignModel
from fertool.registry import RUNTIMES
from fertool.runtime.opening import default_runtime, open_predictor
from fertool.runtime.threads import limited_threads

RUNS = 5
"""Passes before reading the peak: the runtimes' arenas stop growing after the first."""


def peak_rss_bytes() -> int | None:
    """Return the most resident memory that this process ever had; None where nothing tells it.

    On Linux from VmHWM: ru_maxrss starts at the size of the process that started this one
    (getrusage(2) keeps it across fork and exec), so a large parent would be reported in place of a
    small child.
    """
    high_water_bytes = _vm_high_water_bytes()
    # None outside of Linux, and in containers that hide /proc.
    if high_water_bytes is not None:
        return high_water_bytes

    try:
        import resource
    # On Windows.
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # In bytes on macOS, in kibibytes elsewhere (getrusage(2)).
    if sys.platform == "darwin":
        return peak
    return peak * 1024


def _vm_high_water_bytes() -> int | None:
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def main() -> None:
    """Measure the file named on the command line; JSON on stdout."""
    file, *texts = sys.argv[1:]
    path = Path(file)
    options = json.loads(texts[0]) if texts else {}
    batch_size = options.get("batch_size", 1)
    threads = options.get("threads", 1)
    runtime = options.get("runtime") or default_runtime(path)
    # The import is a matter of the library, not of the file.
    for module in RUNTIMES.load(runtime).modules:
        importlib.import_module(module)
    before_loading = time.perf_counter()
    predictor = open_predictor(
        path,
        threads=threads,
        foreign=_foreign_model(options.get("foreign", {})),
        runtime=runtime,
    )
    load_s = time.perf_counter() - before_loading

    size = predictor.input.size
    images = np.zeros((batch_size, predictor.channels, size, size), dtype=np.uint8)
    forward = predictor.prepare_pass(images)
    seconds: list[float] = []

    def timed() -> Any:
        start = time.perf_counter()
        result = forward()
        seconds.append(time.perf_counter() - start)
        return result

    # The first pass is checked and may be stopped; a graph that passes it ends.
    with limited_threads([predictor], threads):
        predictor.run_checked(timed, batch_size)
        for _ in range(RUNS - 1):
            forward()
    figures = {
        "peak_rss_bytes": peak_rss_bytes(),
        "load_s": load_s,
        "first_pass_s": seconds[0],
    }
    sys.stdout.write(json.dumps(figures))


def _foreign_model(values: Mapping[str, Any]) -> ForeignModel:
    fields: dict[str, Any] = {}
    for name, value in values.items():
        # JSON has no tuples.
        fields[name] = tuple(value) if isinstance(value, list) else value
    return ForeignModel(**fields)


if __name__ == "__main__":
    main()
