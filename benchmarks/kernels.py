"""Measure the table of kernel times by which `quantize --compute auto` decides.

    python benchmarks/kernels.py -o fertool/quant/kernel_times.json

One thread of ONNX Runtime. Sizes whose layer would take more than 40 million multiply-accumulates
are left out. `--again` measures a table once more and keeps the shorter time of each kernel, for
machines with other work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from fertool.runtime.environment import processor_kind
from fertool.runtime.kernel_timing import KINDS, time_kernel

CHANNELS = (8, 32, 128, 384)
SIDES = (3, 7, 14, 28, 56)
LARGEST_SIDE = 112
ELEMENTS = {"conv1": 1, "conv3": 9, "conv5": 25}
MOST_MACS = 40e6
MOST_VALUES = 5e5
LEAST_US = 0.02


def sizes_of(kind: str) -> Iterator[tuple[int, ...]]:
    """Yield the sizes at which a kind of kernel is measured."""
    if kind == "linear":
        yield from itertools.product((16, 64, 256, 1024), repeat=2)
    elif kind in ELEMENTS:
        for inputs, outputs in itertools.product((1, 3, *CHANNELS), CHANNELS):
            for side in (*SIDES, LARGEST_SIDE):
                macs = inputs * outputs * side**2 * ELEMENTS[kind]
                if side == SIDES[0] or (macs <= MOST_MACS and max(inputs, outputs) * side**2 < 5e5):
                    yield inputs, outputs, side
    else:
        # A HardSwish is timed behind a convolution, which hides it where channels are many.
        for channels in CHANNELS[:2] if kind == "hardswish" else CHANNELS:
            for side in (1, *SIDES, LARGEST_SIDE):
                if channels * side**2 <= MOST_VALUES:
                    yield channels, side


def measure(kind: str, sizes: tuple[int, ...]) -> list[float]:
    """Return the microseconds with floats and with integers, the medians of some measurements."""
    # What is the difference of several times has the noise of all of them.
    repeats = 5 if kind in ("boundary", "hardswish") else 1
    measured = [time_kernel(kind, sizes) for _ in range(repeats)]
    return [1e6 * statistics.median(seconds) for seconds in zip(*measured, strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--kinds", nargs="*", default=KINDS)
    parser.add_argument("--seconds", type=float, default=220)
    arguments = parser.parse_args()
    known: dict[tuple[str, tuple[int, ...]], Sequence[float]] = {}
    table: dict[str, Any] = {"kernels": {}}
    if arguments.output.exists():
        table = json.loads(arguments.output.read_text())
    for kind, rows in table["kernels"].items():
        for *sizes, floats_us, integers_us in rows:
            known[kind, tuple(sizes)] = (floats_us, integers_us)
    start = time.monotonic()
    for kind in arguments.kinds:
        for sizes in sizes_of(kind):
            old = known.get((kind, sizes))
            if (old and not arguments.again) or time.monotonic() - start > arguments.seconds:
                continue
            found = measure(kind, sizes)
            if old:
                found = list(map(min, found, old))
            # Noise, where what was subtracted took longer: the next run measures it again.
            if min(found) > LEAST_US:
                known[kind, sizes] = found
        print(f"{kind}: {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    kernels: dict[str, list[list[float]]] = {}
    for (kind, sizes), (floats_us, integers_us) in sorted(known.items()):
        row: list[float] = [*sizes, round(floats_us, 3), round(integers_us, 3)]
        kernels.setdefault(kind, []).append(row)
    processor = processor_kind()
    text = json.dumps(
        {
            "processor": processor,
            "runtime": f"onnxruntime {onnxruntime.__version__}",
            "threads": 1,
            "unit": "microseconds; the last two of a row, with floats and with integers",
            "kernels": kernels,
        }
    )
    # One row a line, so that a new measurement can be compared with the old one.
    arguments.output.write_text(text.replace("], [", "],\n[").replace('": [[', '": [\n[') + "\n")


main()
