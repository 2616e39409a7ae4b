"""Bits of activations: all layers alike, and shared out by what rounding each layer's does to the answers.

    python benchmarks/activation_bits.py MODEL.pt --data fer2013.csv --means 6,5,4.5 --seeds 0,1,2 -o activations.json

Weights keep their 8 bits (7 in a portable file), nothing is trained; a seed draws the images of the calibration. Of a
mean that is no whole number there is no network with all layers alike. Rows that the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fertool.artifact.atomic import write_atomic
from fertool.data import DataOptions, open_data
from fertool.data.dataset import FaceDataset
from fertool.metrics import compare_paired
from fertool.models import load_model
from fertool.quant import QuantizeConfig, quantize_model
from fertool.spec import Spec
from fertool.train import predict_logits


def main() -> None:
    options = parse_args()
    spec, module = load_model(options.model)
    source = open_data(options.data, DataOptions(size=spec.input.size, channels=1, classes=spec.classes))
    train, val = source.split("train"), source.split("val")
    said = predict_logits(module, val, spec.input)
    report: dict[str, Any] = {
        "model": {"arch": spec.arch, "arch_args": dict(spec.arch_args), "digest": spec.digest},
        "data": Path(options.data).name,
        "n": len(val),
        "accuracy": float((said.argmax(1) == val.labels).float().mean()),
        "rows": [],
    }
    if options.output.exists():
        report = json.loads(options.output.read_text())
    for mean in (8.0, *map(float, options.means.split(","))):
        for shared in (False, True) if mean < 8 else (False,):
            for seed in map(int, options.seeds.split(",")):
                head = {"bits": mean, "shared": shared, "seed": seed}
                if (shared or mean.is_integer()) and not any(head.items() <= row.items() for row in report["rows"]):
                    report["rows"].append(head | run(spec, module, (train, val), said, mean, shared, seed))
                    print(json.dumps(report["rows"][-1]), flush=True)
                    write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the trained float network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--means", default="6,5,4.5")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def run(
    spec: Spec,
    module: nn.Module,
    data: tuple[FaceDataset, FaceDataset],
    said: Tensor,
    mean: float,
    shared: bool,
    seed: int,
) -> dict[str, Any]:
    """Quantise, and say what came of it."""
    train, val = data
    given: dict[str, Any] = {"average_activation_bits": mean} if shared else {"activation_bits": int(mean)}
    quant, integer = quantize_model(spec, module, train, QuantizeConfig(seed=seed, **given))
    logits = predict_logits(integer, val, spec.input)
    divergence = (said.softmax(1) * (said.log_softmax(1) - logits.log_softmax(1))).sum(1).mean()
    right = [(answers.argmax(1) == val.labels).numpy() for answers in (said, logits)]
    return {
        "accuracy": float(right[1].mean()),
        "kl": float(divergence),
        "top1_agreement": float((logits.argmax(1) == said.argmax(1)).float().mean()),
        "change": asdict(compare_paired(*right)),
        "widths": sorted(quant.activations.values()),
    }


if __name__ == "__main__":
    main()
