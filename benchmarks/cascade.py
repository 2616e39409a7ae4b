"""What a cascade of two model files gives: where the first is not sure, the second answers.

    python benchmarks/cascade.py models/nano_resnet.int8.onnx models/resnet18.2bit.onnx \\
        --data fer2013.csv -o docs/results/cascade.json

The margin between the two largest logits of the first file that sends a share of the images on is
calibrated on one half of the validation images and used on the other, by a fixed seed. Beside each
accuracy stands what the same share at random gives, and single files at random with the same mean
MACs, those of the first file included.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fertool.artifact.atomic import write_atomic
from fertool.data import DataOptions, open_data
from fertool.metrics import compare_paired, wilson_ci95
from fertool.models.cascade_network import margins_of
from fertool.pruning import cascade_profiles, cascade_threshold
from fertool.routing_metrics import measure_routing
from fertool.runtime.opening import open_predictor

EXECUTED = ((0, 1), (1,))
"""The second file is the wider network, 0; the first one, 1, has run before it."""


def main() -> None:
    options = parse_args()
    narrow, wide = (open_predictor(path, threads=1) for path in (options.first, options.second))
    shape = narrow.input
    source = open_data(
        options.data,
        DataOptions(size=shape.size, channels=shape.channels, classes=narrow.classes),
    )
    val = source.split("val")
    if narrow.macs is None or wide.macs is None or narrow.classes != wide.classes:
        raise SystemExit("two files of fertool with the same classes are needed")
    logits = np.stack([wide.logits(val.images), narrow.logits(val.images)])
    correct = logits.argmax(2) == val.labels.numpy()
    margins = margins_of(torch.from_numpy(logits[1]))[:, None]
    macs = (wide.macs, narrow.macs)
    report: dict[str, Any] = {
        "files": [options.first.name, options.second.name],
        "split": val.split,
        "n": len(val),
        "macs": [narrow.macs, wide.macs],
        "seed": options.seed,
        "shares": [measure(correct, margins, macs, share, options.seed) for share in options.share],
    }
    for entry in report["shares"]:
        print(
            f"{entry['share']:.0%} to the second: {100 * entry['accuracy']:.2f} %, at random "
            f"{100 * entry['random_accuracy']:.2f}, p {entry['paired_p']:.2g}"
        )
    if options.output:
        write_atomic(options.output, json.dumps(report, indent=1).encode())


def measure(
    correct: np.ndarray[Any, Any],
    margins: Tensor,
    macs: tuple[int, int],
    share: float,
    seed: int,
) -> dict[str, Any]:
    """Return the figures where this share of the images goes on to the wider file."""
    profiles = cross_fitted(margins, share, seed)
    routing = measure_routing(correct, profiles, macs, EXECUTED, cross_fitted=True)
    is_right = correct[profiles, np.arange(len(profiles))]
    sent = float((profiles == 0).mean())
    return {
        "share": share,
        "share_sent": sent,
        "mean_macs": macs[1] + sent * macs[0],
        "accuracy_ci95": wilson_ci95(int(is_right.sum()), len(is_right)),
        "against_second": asdict(compare_paired(correct[0], is_right)),
        **asdict(routing),
    }


def cross_fitted(margins: Tensor, share: float, seed: int) -> np.ndarray[Any, Any]:
    """Return the file that classifies each image, by a margin from the other half of the images."""
    order = torch.randperm(len(margins), generator=torch.Generator().manual_seed(seed))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    profiles = torch.empty(len(margins), dtype=torch.int64)
    for half, other in (halves, halves[::-1]):
        # Costs of 1 and 0: their mean is the share.
        threshold = cascade_threshold(margins[other], (1.0, 0.0), share)
        profiles[half] = cascade_profiles(margins[half], [threshold])
    return profiles.numpy()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("first", type=Path, help="the smaller model file")
    parser.add_argument("second", type=Path, help="the larger one")
    parser.add_argument("--data", required=True)
    parser.add_argument("--share", type=float, nargs="+", default=[0.1, 0.2, 0.3, 0.4, 0.5])
    parser.add_argument("--seed", type=int, default=0, help="of the halves")
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
