"""What augmentation against bad pictures costs on clean images, and what it brings on bad ones.

    python benchmarks/augmentations.py --data fer2013.csv -o augmentations.json

One network is trained on a third of the training images, for few epochs and several seeds: without
noise, blur, low resolution and JPEG artifacts, with each, and with all four. Every run is evaluated
on the validation images and under `eval`'s corruptions. Arms take turns, seed by seed; runs that
the output has already are kept, and a run that was killed goes on. With `--speed` only the images a
second are measured.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from turns import machine

import fertool
from fertool.artifact.atomic import write_atomic
from fertool.artifact.input_files import MAX_JSON_BYTES, read_text
from fertool.config.training import DEGRADATIONS, AugmentConfig
from fertool.data import DataOptions, FaceDataset, open_data
from fertool.models import create
from fertool.spec import InputSpec
from fertool.training import TrainConfig, discard_resume, fit

# What the best recipe has; a run without degradations is the baseline.
BASE: dict[str, Any] = {
    "rotation": 12.0,
    "translate": 0.08,
    "scale": 0.15,
    "erasing": 0.25,
    "mixup": 0.2,
}


def main() -> None:
    """Train every arm with every seed, and write the figures after each."""
    options = parse_args()
    torch.set_num_threads(options.threads)
    train, val, data = read_data(options)
    report = started(options, len(train))
    if options.speed:
        report["images_per_s"] = measure_speed(options, train)
        finish(report, options.output)
        return
    done = {(run["arm"], run["seed"]) for run in report["runs"]}
    for seed in range(options.seeds):
        for arm in arms():
            if (arm, seed) not in done:
                report["runs"].append(run_arm(arm, seed, train, val, data, options))
                report["summary"] = summary(report["runs"])
                finish(report, options.output)


def parse_args() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True)
    parser.add_argument("--arch", default="nano_resnet")
    parser.add_argument("--every", type=int, default=3, help="train on every Nth training image")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--fraction", type=float, default=0.3, help="of the images, each kind")
    parser.add_argument("--corruptions", default="all", help="as eval takes them")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--lr", type=float, default=0.1)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--speed", action="store_true", help="measure images a second alone")
    parser.add_argument("--rounds", type=int, default=3, help="of --speed, turns of each arm")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def arms() -> dict[str, tuple[str, ...]]:
    """Return the degradations of each arm, by its name."""
    single = {name: (name,) for name in DEGRADATIONS}
    return {"none": (), **single, "all": DEGRADATIONS}


def augmentation(arm: str, options: argparse.Namespace) -> AugmentConfig:
    """Return the augmentation of an arm."""
    return AugmentConfig(**BASE, **dict.fromkeys(arms()[arm], options.fraction))


def read_data(options: argparse.Namespace) -> tuple[FaceDataset, FaceDataset, fertool.Data]:
    """Return a part of the training images, the validation images, and the source to evaluate."""
    source = open_data(options.data, DataOptions(size=InputSpec().size))
    train = source.split("train")
    kept = train.subset(torch.arange(0, len(train), options.every))
    return kept, source.split("val"), fertool.open_data(options.data)


def started(options: argparse.Namespace, images: int) -> dict[str, Any]:
    """Return the report of an interrupted benchmark with the same options, else an empty one."""
    names = ("arch", "every", "epochs", "fraction", "corruptions", "batch_size", "lr")
    asked = {name: getattr(options, name) for name in names}
    asked |= {"data": Path(options.data).name, "images": images, "augmentation": BASE}
    if options.output.exists():
        found = json.loads(read_text(options.output, MAX_JSON_BYTES))
        if found["options"] != asked:
            raise SystemExit(f"{options.output}: was made with other options: remove it")
        return dict(found)
    return {"options": asked, "machine": machine(), "runs": []}


def train_config(arm: str, seed: int, options: argparse.Namespace) -> TrainConfig:
    """Return the training of an arm."""
    return TrainConfig(
        epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        optimizer="sgd",
        weight_decay=2e-4,
        lr_schedule="onecycle",
        warmup_epochs=min(0.5, options.epochs / 2),
        ema_decay=0.99,
        patience=0,
        augmentation=augmentation(arm, options),
        seed=seed,
    )


def run_arm(
    arm: str,
    seed: int,
    train: FaceDataset,
    val: FaceDataset,
    data: fertool.Data,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """Train and evaluate one network; returns its figures."""
    torch.manual_seed(seed)
    spec, module = create(options.arch, {}, InputSpec(), train.classes)
    state = options.output.with_suffix(f".{arm}-{seed}.resume")
    config = train_config(arm, seed, options)
    result = fit(module, train, val, spec.input, config, resume=state)
    discard_resume(state)
    model = fertool.Model(spec, module).sealed()
    measured = fertool.evaluate(model, data, corruptions=options.corruptions).results[0]
    corruptions = asdict(measured)["corruptions"]
    relative = {name: found["mean"] for name, found in corruptions["by_name"].items()}
    seconds = sum(epoch.seconds for epoch in result.history)
    run = {
        "arm": arm,
        "seed": seed,
        "accuracy": measured.accuracy,
        "n": measured.n,
        "mean": corruptions["mean"],
        "reference": corruptions["reference"],
        "by_name": relative,
        "images_per_s": len(train) * options.epochs / seconds,
    }
    print(json.dumps({key: run[key] for key in ("arm", "seed", "accuracy", "mean")}), flush=True)
    return run


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Return for each arm the means over its seeds, and their standard deviations."""
    found: dict[str, Any] = {}
    for arm in arms():
        own = [run for run in runs if run["arm"] == arm]
        if own:
            found[arm] = {"seeds": len(own), "accuracy": mean_and_sd([r["accuracy"] for r in own])}
            for key in ("mean", "reference"):
                values = [run[key]["relative_accuracy"] for run in own if run[key]]
                found[arm][key] = mean_and_sd(values)
    return found


def mean_and_sd(values: list[float]) -> dict[str, float] | None:
    """Return mean and standard deviation of a figure over the seeds, None where it is missing."""
    if not values:
        return None
    spread = statistics.stdev(values) if len(values) > 1 else 0.0
    return {"mean": statistics.fmean(values), "sd": spread}


def measure_speed(options: argparse.Namespace, train: FaceDataset) -> dict[str, float]:
    """Return the images a second of each arm's training: the best of several turns."""
    best: dict[str, float] = {}
    few = train.subset(torch.arange(min(len(train), 8 * options.batch_size)))
    for _ in range(options.rounds):
        for arm in arms():
            torch.manual_seed(0)
            spec, module = create(options.arch, {}, InputSpec(), train.classes)
            config = train_config(arm, 0, options)
            history = fit(module, few, few.subset(torch.arange(2)), spec.input, config).history
            rate = len(few) / min(epoch.seconds for epoch in history)
            best[arm] = max(best.get(arm, 0.0), rate)
    return best


def finish(report: dict[str, Any], output: Path) -> None:
    """Write the report, and print what it comes to."""
    write_atomic(output, json.dumps(report, indent=1).encode())
    shown = report.get("images_per_s") or report.get("summary")
    print(json.dumps(shown), flush=True)


if __name__ == "__main__":
    main()
