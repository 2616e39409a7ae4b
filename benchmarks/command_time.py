"""Seconds and peak memory of `fertool quantize` and `fertool prune`, of this tree and another one.

    git worktree add --detach ../before main
    python benchmarks/command_time.py --old ../before --data fer2013.csv -o command_time.json
    python benchmarks/command_time.py --old ../before --data fer2013.csv \\
        --networks mobilenet_v3_small@224 --commands quantize \\
        --option=--calibration-images=128 -o command_time.224.json

Networks are names of the zoo with the side of their images behind an @, made with random weights,
or model files. Each command runs in a process of its own, the trees by turns (old, new, old, new),
`--repeats` times each. A row has, by tree, the seconds of each run, those of the processor, the
peak of its memory in bytes (the resident set, from wait4), and the accuracy and the agreement with
the input that the command measured. The summary has ratios of medians, new / old; on a busy machine
those of the processor are the ones to trust. Read the data set once before (`fertool data info`):
the first command to do so caches it. `--prefix` is a command that runs each of them, for example
`taskset -c 0,1`.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import write_atomic

COMMANDS = {
    "quantize": ("quantize",),
    "prune": ("prune", "--target-flops", "0.5"),
}
NETWORKS = "resnet18@48,mobilenet_v2@48,efficientnet_b0@48"


def main() -> None:
    options = parse_args()
    trees = {"old": options.old, "new": Path(__file__).parent.parent}
    report: dict[str, Any] = {"threads": options.threads, "repeats": options.repeats, "rows": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for network in options.networks.split(","):
            model = model_file(network, trees["new"], folder, options.threads)
            for command in options.commands.split(","):
                row = compare(command, model, trees, options, folder)
                report["rows"].append({"network": network, "command": command, **row})
                print(line(report["rows"][-1]), flush=True)
                write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--old", type=Path, required=True, help="the other tree")
    parser.add_argument("--data", required=True, help="a data set")
    parser.add_argument("--networks", default=NETWORKS, help="separated by commas")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="separated by commas")
    parser.add_argument("--option", action="append", default=[], help="of the commands; repeatable")
    parser.add_argument("--prefix", type=shlex.split, default=[], help="runs each command")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("-o", "--output", type=Path, required=True, help="JSON file")
    return parser.parse_args()


def environment(tree: Path, threads: int) -> dict[str, str]:
    """Return the environment in which a tree's `fertool` runs."""
    paths = {"PYTHONPATH": str(tree.resolve()), "PYTHONSAFEPATH": "1"}
    # Safe: else the tree in the current folder would come before the other one.
    return {**os.environ, **paths, "OMP_NUM_THREADS": str(threads)}


def model_file(network: str, tree: Path, folder: Path, threads: int) -> Path:
    """Return the file of a network, made if it is a name of the zoo."""
    if "@" not in network:
        return Path(network).resolve()
    name, size = network.split("@")
    path = folder / f"{name}.{size}.pt"
    command = ["import", name, "--input-size", size, "-o", str(path)]
    subprocess.run(
        [sys.executable, "-m", "fertool", *command],
        env=environment(tree, threads),
        check=True,
        capture_output=True,
    )
    return path


def compare(
    command: str,
    model: Path,
    trees: Mapping[str, Path],
    options: argparse.Namespace,
    folder: Path,
) -> dict[str, Any]:
    """Run one command on one network in both trees, interleaved."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in trees}
    for _ in range(options.repeats):
        for name, tree in trees.items():
            written = folder / f"{name}.{command}.pt"
            arguments = [*COMMANDS[command], str(model), "-o", str(written), "--json"]
            arguments += ["--data", options.data, *options.option]
            program = [*options.prefix, sys.executable, "-m", "fertool", *arguments]
            runs[name].append(measure(program, environment(tree, options.threads)))
    ratios = {}
    for key in ("seconds", "cpu_seconds", "peak_bytes"):
        old, new = (statistics.median(run[key] for run in runs[name]) for name in trees)
        ratios[key] = new / old
    return {"ratios": ratios, **runs}


def measure(program: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """Run one command; returns its time, its memory and what it says of the result."""
    with tempfile.TemporaryFile() as out:
        start = time.perf_counter()
        process = subprocess.Popen(program, env=environ, stdout=out, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"failed: {shlex.join(program)}")
        out.seek(0)
        printed = json.load(out)
    return {
        "seconds": seconds,
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "peak_bytes": peak_bytes(usage),
        "change": printed.get("change"),
    }


def peak_bytes(usage: resource.struct_rusage) -> int:
    """Return the largest resident set, which Linux counts in KiB and macOS in bytes."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def line(row: Mapping[str, Any]) -> str:
    """Return a row as text."""
    cells = [f"{row['network']:24} {row['command']:9}"]
    for name in ("old", "new"):
        run = row[name][0]
        memory = run["peak_bytes"] / 1e9
        cells.append(f"{name} {run['seconds']:6.1f} s ({run['cpu_seconds']:6.1f}) {memory:.2f} GB")
    ratios = row["ratios"]
    cells.append(f"x {ratios['seconds']:.2f} ({ratios['cpu_seconds']:.2f})")
    return "  ".join(cells)


if __name__ == "__main__":
    main()
