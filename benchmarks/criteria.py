"""Which channels to remove: every criterion and normalisation at the same budgets, before any
training.

    python benchmarks/criteria.py MODEL.pt [MODEL.pt …] --data fer2013.csv -o criteria.json

Each network is pruned in one shot as `fertool prune` does, with and without the repair of its
layers, and judged on the validation images. What separates two criteria here a fine-tuning narrows,
but it has to start somewhere.
"""

from __future__ import annotations

import argparse
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from fertool.artifact.atomic import write_atomic
from fertool.config.pruning import SelectionConfig
from fertool.data import DataOptions, open_data
from fertool.metrics import evaluate_logits
from fertool.models import load_model
from fertool.models.build import require_static
from fertool.pruning import Constraints, Targets, plan_step, score_channels
from fertool.pruning.criterion import load_criterion
from fertool.training import predict_logits

Normalization = Literal["none", "layer"]
NORMALIZATIONS: tuple[Normalization, ...] = ("none", "layer")
WAYS = [
    (criterion, normalization)
    for criterion, normalization in itertools.product(
        ("kl", "taylor", "l1", "l2", "l2-gamma", "bn-gamma"), NORMALIZATIONS
    )
    # Norms of filters of different fan-in do not compare, and no method compares them.
    if criterion not in ("l1", "l2") or normalization == "layer"
]


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    report: dict[str, Any] = {
        "data": Path(options.data).name,
        "samples": options.samples,
        "models": [],
    }
    for path in options.models:
        report["models"].append(judge(path, options))
        write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="trained networks, .pt files")
    parser.add_argument("--data", required=True)
    parser.add_argument("--targets", default="0.7,0.5,0.3", help="parts of the MACs that stay")
    parser.add_argument("--samples", type=int, default=2048, help="images that score the channels")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def judge(path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the accuracies of one network, whole and pruned in every way."""
    spec, loaded = load_model(path)
    module = require_static(loaded)
    source = open_data(
        options.data, DataOptions(size=spec.input.size, channels=1, classes=spec.classes)
    )
    scoring, val = source.split("train").balanced_subset(options.samples, 0), source.split("val")

    def accuracy(network: torch.nn.Module) -> float:
        return evaluate_logits(
            predict_logits(network, val, spec.input), val.labels, val.classes
        ).accuracy

    found: dict[str, Any] = {
        "arch": spec.arch,
        "digest": spec.digest,
        "n": len(val),
        "accuracy": accuracy(module),
    }
    found["rows"] = []
    for criterion, normalization in WAYS:
        way = SelectionConfig(criterion=criterion, score_normalization=normalization)
        scored = score_channels(
            spec, module, way, scoring if load_criterion(criterion).needs_images else None
        )
        for target in map(float, options.targets.split(",")):
            row: dict[str, Any] = {
                "criterion": criterion,
                "normalise": normalization,
                "target": target,
            }
            constraints = Constraints(Targets(macs=target))
            for key, reconstruct in (("plain_accuracy", False), ("accuracy", True)):
                selection = replace(way, reconstruct=reconstruct)
                cut = plan_step(spec, module, constraints, selection, scoring, scored=scored)
                row[key] = accuracy(cut.apply(module))
                row |= {"macs_ratio": cut.plan.macs_ratio, "params_ratio": cut.plan.params_ratio}
            found["rows"].append(row)
            print(json.dumps({"arch": spec.arch, **row}), flush=True)
    return found


if __name__ == "__main__":
    main()
