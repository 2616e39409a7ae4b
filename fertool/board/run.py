"""Check and time the models of this folder; needs Python 3.8 and onnxruntime alone.

`python run.py > result.json`; then, at home, `fertool bench --import result.json`.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

import numpy as np
from machine import celsius, describe_machine
from start import open_file, read_bundle
from timing import measure_starts, time_files


def softmax(logits: Any) -> Any:
    """Return the probabilities [N, K] of logits."""
    # The largest power is 1, so that none overflows.
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return powers / powers.sum(1, keepdims=True)


def compare(run: Any, entry: Any, cases: Any) -> dict[str, Any]:
    """Return how the logits of this machine differ from those of the one that exported."""
    home, labels = cases[entry["logits"]], cases[entry["labels"]] if entry["labels"] else None
    here = np.stack([run(image) for image in cases[entry["images"]]])
    if entry["output"] == "probabilities":
        here = np.log(np.maximum(here, np.finfo(np.float32).tiny))
    return {
        "n": len(here),
        "top1_agreement": float((here.argmax(1) == home.argmax(1)).mean()),
        "max_probability_diff": float(np.abs(softmax(here) - softmax(home)).max()),
        "correct": None if labels is None else int((here.argmax(1) == labels).sum()),
    }


def main(threads: int, runs: int, warmup: int, starts: int) -> None:
    """Print one JSON object about all files."""
    bundle, cases = read_bundle()
    celsius_before = celsius()
    opened, entries, failed = [], [], []
    for entry in bundle.pop("files"):
        name, images = entry["file"], cases[entry["images"]]
        try:
            entry.update(measure_starts(name, images[0], threads, starts))
            entry["agreement"] = compare(open_file(name, threads), entry, cases)
        # Of ONNX Runtime, whose exceptions have no base class of their own, or of the process.
        except Exception as error:
            failed.append({"file": name, "error": str(error)})
            continue
        opened.append((name, images))
        entries.append(entry)
    block, samples = time_files(opened, threads, runs, warmup)
    # zip has no `strict` before Python 3.10.
    for entry, times in zip(entries, samples):
        entry["samples_s"] = times
    bundle.update(files=entries, failed=failed, threads=threads, warmup=warmup, block=block)
    bundle.update(environment=describe_machine())
    bundle.update(celsius_before=celsius_before, celsius_after=celsius())
    json.dump(bundle, sys.stdout)


def positive(text: str) -> int:
    """Return a number of 1 or more."""
    if int(text) < 1:
        raise ValueError(text)
    return int(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=positive, default=1)
    parser.add_argument("--runs", type=positive, default=1000, help="timed passes of each file")
    parser.add_argument("--warmup", type=int, default=100, help="passes before these")
    parser.add_argument("--starts", type=positive, default=5, help="processes that load each file")
    main(**vars(parser.parse_args()))
