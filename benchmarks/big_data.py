"""More images than memory: a million 48 x 48 gray images (2.3 GB of pixels) trained on in a process
of 2 GiB.

    python benchmarks/big_data.py [--images 1000000] [--budget 2] -o big_data.json

The budget is RLIMIT_DATA: Linux refuses any memory beyond it that belongs to the process alone
(heap, anonymous and private writable mappings, used or not). Pages of the mapped images are not of
that kind: the system drops them when it needs room, and they are reported apart. To see it drop
them, limit those too: `systemd-run --scope -p MemoryMax=2G python benchmarks/big_data.py`.

The images are drawn faces, moved and with new grain, each once; all steps but the drawing are
fertool's own: cache file, class mapping, search for copies, and one epoch of `fit`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fertool.artifact.atomic import write_atomic
from fertool.data import DataOptions, DataSource
from fertool.data.cache import load_or_make
from fertool.data.labels import BASIC
from fertool.data.reader import NO_FINDINGS, Pixels, RawSplit
from fertool.data.storage import Chunks
from fertool.data.synth import draw_faces
from fertool.models import create
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit

SIDE = 48
DRAWN = 700
CHUNK = 4096
SHIFT = 3
GRAIN = 32


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    budget = int(options.budget * 2**30)
    limit_memory(budget)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder, Memory() as memory:
        os.environ["FERTOOL_CACHE"] = folder
        report = {
            "images": options.images,
            "pixel_bytes": options.images * SIDE * SIDE,
            "budget_bytes": budget,
            "threads": options.threads,
            "seed": options.seed,
            **run(options),
        }
        files = [path.stat().st_size for path in Path(folder).iterdir()]
    report |= {"file_bytes": sum(files), **memory.peaks()}
    print(json.dumps(report, indent=1))
    if options.output:
        write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument(
        "--budget", type=float, default=2.0, help="GiB that the process may have for itself"
    )
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument(
        "--width", type=float, default=0.25, help="of the network, a MobileNetV3-Small"
    )
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--folder", type=Path, help="where the cache file goes for the while; not a disk in memory"
    )
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Write, open, search and train; returns what each took."""
    shape = {"width_mult": options.width, "stem_stride": 2, "early_stride": 2}
    spec, module = create("mobilenet_v3_small", shape, InputSpec(size=SIDE), BASIC)
    config = TrainConfig(epochs=1, batch_size=options.batch_size, lr=2e-3, seed=options.seed)
    with stopwatch() as making:
        Crowd(options.images, options.seed)
    with stopwatch() as opening:
        source = DataSource(Crowd(options.images, options.seed), DataOptions(), print)
        train, val = source.split("train"), source.split("val")
    with stopwatch() as searching:
        fresh = source.distinct_from("val", "train")
    batches: list[int] = []
    with stopwatch() as training:
        result = fit(
            module,
            train,
            val,
            spec.input,
            config,
            on_batch=lambda done, total: batches.append(done),
        )
    return {
        "arch": spec.arch,
        "width": options.width,
        "batch_size": options.batch_size,
        "train_images": len(train),
        "val_images": len(val),
        "val_images_without_copy": int(fresh.sum()),
        "steps": len(batches),
        "making_s": making(),
        "opening_s": opening(),
        "searching_s": searching(),
        "training_s": training(),
        "images_per_s": len(train) / training(),
        "val_accuracy": result.evaluation.accuracy,
        "digest": source.digest,
    }


class Crowd:
    """A reader of many faces: drawn ones, each shifted and grained anew.

    The last hundredth is for validation.
    """

    name, classes, splits = "crowd", BASIC, ("train", "val")
    findings = NO_FINDINGS

    def __init__(self, count: int, seed: int) -> None:
        drawn, labels = draw_faces(DRAWN, seed, SIDE)
        images = Chunks((count, 1, SIDE, SIDE), lambda: crowd(drawn, count, seed))
        self.images = load_or_make(f"crowd-{count}-{seed}", lambda: {"images": images}, print)[
            "images"
        ]
        self.labels = labels[np.arange(count) % DRAWN]
        self.digest = hashlib.sha256(self.images.reshape(-1).data).hexdigest()

    def read(self, split: str) -> RawSplit:
        """Return one split."""
        in_val = np.arange(len(self.labels)) >= len(self.labels) - len(self.labels) // 100
        return RawSplit(self.images, self.labels, self.classes).subset(in_val == (split == "val"))


def crowd(drawn: Pixels, count: int, seed: int) -> Iterator[Pixels]:
    """Yield the images in pieces: grey levels shrunk by an eighth, moved by up to three pixels,
    and grain added.
    """
    rng = np.random.default_rng(seed)
    shrunk = drawn - drawn // (256 // GRAIN)
    for start in range(0, count, CHUNK):
        which = np.arange(start, min(start + CHUNK, count)) % len(drawn)
        moved = np.roll(shrunk, rng.integers(-SHIFT, SHIFT + 1, 2), (2, 3))
        yield moved[which] + rng.integers(0, GRAIN, (len(which), 1, SIDE, SIDE), dtype=np.uint8)


def limit_memory(budget: int) -> None:
    """Let the kernel refuse what goes beyond `budget` bytes, and see that it does."""
    resource.setrlimit(resource.RLIMIT_DATA, (budget, resource.RLIM_INFINITY))
    try:
        np.empty(budget, np.uint8)
    except MemoryError:
        return
    raise SystemExit("this system does not enforce RLIMIT_DATA on mappings; Linux does")


@dataclass
class Memory:
    """The peaks of what /proc says of this process, looked at fifty times a second."""

    limited: int = 0
    anonymous: int = 0
    mapped: int = 0

    def __enter__(self) -> Memory:
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._done.set()
        self._thread.join()

    def peaks(self) -> dict[str, int]:
        """Return bytes: what the limit counts, what of it is in use, mapped files,
        and the last two at once.
        """
        resident = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return {
            "peak_limited_bytes": self.limited,
            "peak_anonymous_bytes": self.anonymous,
            "peak_mapped_bytes": self.mapped,
            "peak_resident_bytes": resident,
        }

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            status = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
            )
            self.limited = max(self.limited, kilobytes(status["VmData"]))
            self.anonymous = max(self.anonymous, kilobytes(status["RssAnon"]))
            self.mapped = max(self.mapped, kilobytes(status["RssFile"]))


def kilobytes(text: str) -> int:
    return 1024 * int(text.split()[0])


@contextmanager
def stopwatch() -> Iterator[Any]:
    """Give a function that says, after the block, how many seconds the block took."""
    start = time.perf_counter()
    end: list[float] = []
    yield lambda: end[0] - start
    end.append(time.perf_counter())


if __name__ == "__main__":
    main()
