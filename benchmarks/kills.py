"""A training killed with SIGKILL at ten random moments and started again each time, against an undisturbed one.

    python benchmarks/kills.py [--data fer2013.csv] -o kills.json

Both run the same command of the installed `fertool`, once for a teacher and once for a student that learns from it; the
model files are compared byte by byte. A life lasts from the start of the process, imports included, to a moment drawn
evenly over what a tenth of the training takes and a half more.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import write_atomic
from fertool.artifact.store import file_digest


def main() -> None:
    options = parse_args()
    report: dict[str, Any] = {"data": Path(options.data).name, "epochs": options.epochs, "commands": []}
    common = ["--data", options.data, "--epochs", str(options.epochs), "--seed", str(options.seed), "--ema", "0.99"]
    with tempfile.TemporaryDirectory() as folder:
        teacher = Path(folder, "teacher.pt")
        commands = {
            "train-teacher": ["--arch", options.teacher, *options.teacher_arg, *common],
            "distill": [str(teacher), "--arch", "mobilenet_v3_small", *common],
        }
        for name, arguments in commands.items():
            whole, killed = teacher if name == "train-teacher" else Path(folder, "whole.pt"), Path(folder, f"{name}.pt")
            found = compare(name, arguments, whole, killed, options.kills, random.Random(options.seed))
            report["commands"].append(found)
            print(
                f"{name}: {found['kills']} kills, {'same bytes' if found['same_bytes'] else 'OTHER BYTES'}", flush=True
            )
    if options.output:
        write_atomic(options.output, json.dumps(report, indent=1).encode())
    sys.exit(0 if all(found["same_bytes"] for found in report["commands"]) else 1)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="synth:1400", help="what to train on")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--teacher", default="resnet18", help="architecture of the teacher")
    parser.add_argument("--teacher-arg", nargs="*", default=["--arch-arg", "width_mult=0.125"], help="its arguments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def compare(
    name: str, arguments: list[str], whole: Path, killed: Path, kills: int, chance: random.Random
) -> dict[str, Any]:
    """Train to `whole` undisturbed and to `killed` with kills; returns the lives' seconds and whether bytes agree."""
    start = time.perf_counter()
    run(name, arguments, whole)
    took = time.perf_counter() - start
    starting = import_time()
    lives: list[float] = []
    while len(lives) < kills:
        lives.append(starting + chance.uniform(0, 1.5) * (took - starting) / (kills + 1))
        try:
            run(name, arguments, killed, lives[-1])
        except subprocess.TimeoutExpired:
            continue
        raise SystemExit(f"{name} ended before kill {len(lives)}: give it more --epochs")
    run(name, arguments, killed)
    return {
        "command": name,
        "undisturbed_s": took,
        "kills": len(lives),
        "lives_s": lives,
        "same_bytes": file_digest(whole) == file_digest(killed),
        "left_over": sorted(path.name for path in killed.parent.glob(f"{killed.name}.*")),
    }


def run(name: str, arguments: list[str], output: Path, life: float | None = None) -> None:
    """Run a command of fertool, killed by SIGKILL after `life` seconds; that raises TimeoutExpired."""
    command = [sys.executable, "-m", "fertool", name, *arguments, "-o", str(output)]
    subprocess.run(command, timeout=life, capture_output=True, check=True)


def import_time() -> float:
    """Return the seconds that a process needs before it can train."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import fertool.train, fertool.models"], check=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
