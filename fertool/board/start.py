"""Open one file of this folder in a process of its own: time and memory of a start, as JSON.

`python start.py FILE THREADS` reads one image from stdin, as `numpy.save` writes it.
"""

from __future__ import annotations

import io
import json
import sys
import time
from pathlib import Path
from typing import Any, Callable

import numpy as np
from machine import onnxruntime, peak_rss_bytes

HERE = Path(__file__).resolve().parent
PASSES = 5
"""Before the peak is read: ONNX Runtime takes more memory in the first passes."""


def read_bundle() -> tuple[dict[str, Any], Any]:
    """Return what is known of the files, and the arrays of the test cases by name."""
    bundle = json.loads((HERE / "bundle.json").read_text(encoding="utf-8"))
    return bundle, np.load(HERE / "cases.npz")


def open_file(name: str, threads: int) -> Callable[[Any], Any]:
    """Return a function from one image of the test cases to its logits or probabilities [K]."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Fatal: errors arrive as exceptions.
    options.log_severity_level = 4
    # Idle threads that spin after a pass would take cores from the next model.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    path, providers = str(HERE / name), ["CPUExecutionProvider"]
    session = onnxruntime.InferenceSession(path, options, providers=providers)
    source, output = session.get_inputs()[0].name, session.get_outputs()[0].name
    return lambda image: session.run([output], {source: image[None]})[0][0]


def seconds_of(function: Callable[..., Any], *arguments: Any) -> tuple[float, Any]:
    """Return how long a call took, and what it returned."""
    start = time.perf_counter()
    result = function(*arguments)
    return time.perf_counter() - start, result


def main(name: str, threads: int) -> None:
    """Print what a file costs a process that runs it alone."""
    # One alone: the other images of the test cases would count as memory of the model.
    image = np.load(io.BytesIO(sys.stdin.buffer.read()))
    load_s, run = seconds_of(open_file, name, threads)
    passes_s = [seconds_of(run, image)[0] for _ in range(PASSES)]
    figures = {"load_s": load_s, "first_pass_s": passes_s[0], "peak_rss_bytes": peak_rss_bytes()}
    json.dump(figures, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
