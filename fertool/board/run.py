"""Check and time the models of this folder; needs Python 3.8 and onnxruntime alone.

`python run.py > result.json`; then, at home, `fertool bench --import result.json`.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from machine import celsius, describe_machine
from start import open_file, read_bundle, seconds_of

BLOCK, MIN_ROUNDS = 10, 20
"""The most passes of one file in a row, and how often each file has its turn at least."""
OPENINGS, ROUNDS_EACH, WARMUP_AGAIN = 10, 5, 20
"""Files are opened so often, since where memory lies makes one opening faster than the next."""


def compare(run: Any, images: Any, home: Any, labels: Any) -> dict[str, Any]:
    """Return how the logits of this machine differ from those of the one that exported."""
    here = np.stack([run(image) for image in images])
    powers = np.exp([logits - logits.max(1, keepdims=True) for logits in (here, home)])
    probabilities = powers / powers.sum(2, keepdims=True)
    return {
        "n": len(here),
        "top1_agreement": float((here.argmax(1) == home.argmax(1)).mean()),
        "max_probability_diff": float(np.abs(probabilities[0] - probabilities[1]).max()),
        "correct": None if labels is None else int((here.argmax(1) == labels).sum()),
    }


def measure_starts(name: str, threads: int, count: int) -> dict[str, Any]:
    """Return the seconds to load a file and to its first logits, of processes of its own."""
    command = [sys.executable, str(Path(__file__).with_name("start.py")), name, str(threads)]
    starts = [json.loads(subprocess.check_output(command)) for _ in range(count)]
    figures = {key: [start[key] for start in starts] for key in ("load_s", "first_pass_s")}
    peaks = [start["peak_rss_bytes"] or 0 for start in starts]
    return {**figures, "peak_rss_bytes": max(peaks) or None}


def time_files(files: Any, threads: int, count: int, warmup: int) -> tuple[int, list[list[float]]]:
    """Return the seconds of the passes of each (name, images); blocks of the files take turns."""
    block = max(1, min(BLOCK, count // MIN_ROUNDS))
    rounds, samples = count // block, [[] for _ in files]
    openings = max(1, min(OPENINGS, rounds // ROUNDS_EACH))
    starts = [part * rounds // openings for part in range(openings)]
    for number in range(rounds):
        if number in starts:
            passes = [(open_file(name, threads), images) for name, images in files]
            for run, images in passes:
                [run(images[i % len(images)]) for i in range(warmup)]
            warmup = min(warmup, WARMUP_AGAIN)
        for (run, images), times in zip(passes, samples):
            # Not timed: the caches are full of another model.
            run(images[0])
            for i in range(number * block, (number + 1) * block):
                times.append(seconds_of(run, images[i % len(images)])[0])
    return block, samples


def main(threads: int, runs: int, warmup: int, starts: int) -> None:
    """Print one JSON object about all files."""
    bundle, cases = read_bundle()
    celsius_before = celsius()
    opened, entries, failed = [], [], []
    for entry in bundle.pop("files"):
        name, images, home = entry["file"], cases[entry["images"]], cases[entry["logits"]]
        labels = cases[entry["labels"]] if entry["labels"] else None
        try:
            entry.update(measure_starts(name, threads, starts))
            entry["agreement"] = compare(open_file(name, threads), images, home, labels)
        # Of ONNX Runtime, whose exceptions have no base class of their own, or of the process.
        except Exception as error:
            failed.append({"file": name, "error": str(error)})
            continue
        opened.append((name, images))
        entries.append(entry)
    block, samples = time_files(opened, threads, runs, warmup)
    for entry, times in zip(entries, samples):
        entry["samples_s"] = times
    figures = {"threads": threads, "warmup": warmup, "block": block, "files": entries}
    heat = {"celsius_before": celsius_before, "celsius_after": celsius()}
    environment = {"environment": describe_machine()}
    json.dump({**bundle, **environment, **heat, **figures, "failed": failed}, sys.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1000, help="timed passes of each file")
    parser.add_argument("--warmup", type=int, default=100, help="passes before these")
    parser.add_argument("--starts", type=int, default=5, help="processes that load each file")
    main(**vars(parser.parse_args()))
