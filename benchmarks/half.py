"""What half of a trained network still knows: half its MACs, half its time, and a gate that
chooses, fine-tuned alike.

    python benchmarks/half.py MODEL.pt --data fer2013.csv --epochs 10 --keep half -o half.json

Each row is one `fertool prune` with distillation from MODEL.pt itself; accuracies are paired with
its own, and times are taken interleaved with it in ONNX Runtime, on one thread. Rows that the
output has already are kept; with --time-again only their times are taken anew, of the networks in
--keep.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from fertool.artifact.atomic import write_atomic
from fertool.artifact.header import read_spec
from fertool.workflows.comparison import measure_changes
from fertool.workflows.data import open_data
from fertool.workflows.model import load

RULES: dict[str, tuple[str, ...]] = {
    "half the MACs": ("--target-flops", "0.5"),
    "half the time": ("--target-latency", "0.5"),
    "dynamic": ("--schedule", "dynamic", "--target-flops", "0.44"),
}


def main() -> None:
    options = parse_args()
    spec = read_spec(options.model)
    training = {"epochs": options.epochs, "lr": options.lr}
    model = {"arch": spec.arch, "arch_args": dict(spec.arch_args), "digest": spec.digest}
    report: dict[str, Any] = {
        "model": model,
        "data": Path(options.data).name,
        **training,
        "rows": [],
    }
    if options.output.exists():
        report = json.loads(options.output.read_text())
    if options.time_again:
        for row in report["rows"]:
            row |= timed(row, options)
            write_atomic(options.output, json.dumps(report, indent=1).encode())
        return
    for rule in options.rules.split(","):
        for seed in map(int, options.seeds.split(",")):
            if not any((row["rule"], row["seed"]) == (rule, seed) for row in report["rows"]):
                report["rows"].append(run(rule, seed, options))
                print(json.dumps(report["rows"][-1]), flush=True)
                write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the trained network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--rules", default=",".join(RULES), help="rows, separated by commas")
    parser.add_argument("--epochs", type=int, default=10, help="epochs of fine-tuning")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--keep", type=Path, required=True, help="folder for the pruned networks")
    parser.add_argument(
        "--time-again",
        action="store_true",
        help="measure the latencies of kept networks, prune none",
    )
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def kept(rule: str, seed: int, options: argparse.Namespace) -> Path:
    """Return where a pruned network stays."""
    folder: Path = options.keep
    return folder / f"{options.model.stem}.{rule.replace(' ', '_')}.{seed}.pt"


def timed(row: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """Return the latencies of a row: the model's and the pruned network's, interleaved."""
    before = load(options.model)
    after = load(kept(row["rule"], row["seed"], options))
    source = open_data(options.data).fitted(before.input, before.classes)
    change = measure_changes(before, after, source.split("val"), bench=True)
    print(row["rule"], row["seed"], change.speedup, change.speedup_ci95, flush=True)
    changes = change.as_dict()
    return {key: value for key, value in changes.items() if "latency" in key or "speedup" in key}


def run(rule: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Prune once, and say what came of it."""
    options.keep.mkdir(parents=True, exist_ok=True)
    command = [
        *(
            sys.executable,
            "-m",
            "fertool",
            "prune",
            str(options.model),
            "-o",
            str(kept(rule, seed, options)),
        ),
        *(
            "--data",
            options.data,
            *RULES[rule],
            "--epochs",
            str(options.epochs),
            "--batch-size",
            "128",
        ),
        *(
            "--lr",
            str(options.lr),
            "--lr-schedule",
            "onecycle",
            "--ema-decay",
            "0.998",
            "--seed",
            str(seed),
            "--json",
        ),
    ]
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{rule}: exit code {done.returncode}")
    made = json.loads(done.stdout)
    ratios = (
        {key: made["plan"][key] for key in ("macs_ratio", "params_ratio")} if made["plan"] else {}
    )
    if rule == "dynamic":
        # The plan is that of one profile: of the whole, the mean over images counts.
        whole = read_spec(options.model)
        ratios = {
            "macs_ratio": made["macs"] / whole.macs,
            "params_ratio": made["params"] / whole.params,
        }
    return {
        "rule": rule,
        "seed": seed,
        **ratios,
        "macs": made["macs"],
        "params": made["params"],
        **made["change"],
    }


if __name__ == "__main__":
    main()
