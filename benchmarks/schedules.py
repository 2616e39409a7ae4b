"""The thesis's table 3-3 in our numbers: PRJ beside Network Slimming, GREG, and fertool's own
schedules.

    python benchmarks/schedules.py MODEL.pt --data fer2013.csv --target-params 0.5 -o schedules.json

Each schedule is one `fertool prune` with the same budget of parameters. What each trains in all is
told by its epochs over all images; those without a training before the cut get as many in the end.
Rows that the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import write_atomic
from fertool.artifact.header import read_spec

SCHEDULES: dict[str, tuple[str, ...]] = {
    "one-shot": (),
    "iterative": ("--steps", "3", "--step-epochs", "1"),
    "slimming": ("--sparse-epochs", "{before}"),
    "greg": ("--sparse-epochs", "{before}", "--criterion", "l1"),
    "prj": (
        "--punish-epochs",
        "10",
        "--punish-share",
        "{share}",
        "--reward-epochs",
        "1",
        "--max-drop",
        "{drop}",
    ),
    "prj, repaired": (
        *(
            "--punish-epochs",
            "10",
            "--punish-share",
            "{share}",
            "--reward-epochs",
            "1",
            "--max-drop",
            "{drop}",
        ),
        "--reconstruct",
    ),
}


def main() -> None:
    options = parse_args()
    spec = read_spec(options.model)
    report: dict[str, Any] = {
        "model": {"arch": spec.arch, "arch_args": dict(spec.arch_args), "digest": spec.digest},
        "data": Path(options.data).name,
        **{
            name: getattr(options, name)
            for name in ("target_params", "before", "epochs", "share", "drop", "lr")
        },
        "rows": [],
    }
    if options.output.exists():
        report = json.loads(options.output.read_text())
    for name in SCHEDULES:
        for seed in map(int, options.seeds.split(",")):
            if not any((row["schedule"], row["seed"]) == (name, seed) for row in report["rows"]):
                report["rows"].append(run(name, seed, options))
                print(json.dumps(report["rows"][-1]), flush=True)
                write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the trained network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument(
        "--target-params", type=float, default=0.5, help="part of the parameters that stays"
    )
    parser.add_argument(
        "--before", type=int, default=4, help="epochs under the penalties of slimming and GREG"
    )
    parser.add_argument("--epochs", type=int, default=4, help="epochs of recovery")
    parser.add_argument(
        "--share",
        type=float,
        default=0.01,
        help="of the channels that a punishing removes; PRJ's 0.002",
    )
    parser.add_argument("--drop", type=float, default=3, help="points at which PRJ's judge stops")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def run(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prune once, and say what came of it."""
    schedule = name.partition(",")[0]
    trains_before = schedule in ("slimming", "greg")
    own = [
        part.format(before=options.before, share=options.share, drop=options.drop)
        for part in SCHEDULES[name]
    ]
    after = options.epochs + (0 if trains_before or schedule == "prj" else options.before)
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "pruned.pt"
        command = [
            *(sys.executable, "-m", "fertool", "prune", str(options.model), "-o", str(output)),
            *(
                "--data",
                options.data,
                "--target-params",
                str(options.target_params),
                "--schedule",
                schedule,
                *own,
            ),
            *(
                "--epochs",
                str(after),
                "--batch-size",
                "128",
                "--lr",
                str(options.lr),
                "--seed",
                str(seed),
            ),
            *("--round-to", "1", "--no-bench", "--json"),
        ]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"{name}: {done.stderr}")
        made = json.loads(done.stdout)
        history = json.loads(Path(f"{output}.history.json").read_text())["history"]
    return {
        "schedule": name,
        "seed": seed,
        "params_ratio": made["plan"]["params_ratio"],
        "macs_ratio": made["plan"]["macs_ratio"],
        "epochs": sum("punish" not in record.get("phase", "") for record in history),
        **{key: made["metrics"][key] for key in ("n", "accuracy", "accuracy_ci95")},
        "change": made["change"],
    }


if __name__ == "__main__":
    main()
