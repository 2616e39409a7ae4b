"""Who gets the bits: every allocation at the same mean of bits, and what rounding with compensation is worth.

    python benchmarks/bits.py MODEL.pt --data fer2013.csv --average-bits 3.22 --seeds 0,1,2 -o bits.json

A seed draws the images of the traces and of the calibration, and the actor-critic's chance. Nothing is trained.
Accuracies and answers are those of the integer network on the validation images. Rows that the output has already are
kept.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from fertool.artifact.atomic import write_atomic
from fertool.data import DataOptions, open_data
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.export import ExportOptions, export_model
from fertool.hessian import TraceConfig, estimate
from fertool.metrics import compare_paired
from fertool.models import load_model, stored_size
from fertool.quant import (
    PORTABLE_LIMIT,
    Problem,
    QuantizeConfig,
    RoundedAccuracy,
    Search,
    allocate,
    lower_bound,
    make_problem,
    quantize_model,
    search,
)
from fertool.spec import Spec
from fertool.train import predict_logits

TRACE_IMAGES, SEARCH_IMAGES = 64, 512
ROWS = (
    ("optimal", "compensated"),
    ("hawq", "compensated"),
    ("actor-critic", "compensated"),
    ("uniform", "compensated"),
    ("optimal", "nearest"),
    ("uniform", "nearest"),
)


def main() -> None:
    options = parse_args()
    spec, module = load_model(options.model)
    source = open_data(options.data, DataOptions(size=spec.input.size, channels=1, classes=spec.classes))
    train, val = source.split("train"), source.split("val")
    said = predict_logits(module, val, spec.input)
    report: dict[str, Any] = {
        "model": {"arch": spec.arch, "arch_args": dict(spec.arch_args), "digest": spec.digest},
        "data": Path(options.data).name,
        "average_bits": options.average_bits,
        "n": len(val),
        "accuracy": float((said.argmax(1) == val.labels).float().mean()),
        "size_bytes": options.model.stat().st_size,
        "rows": [],
    }
    if options.output.exists():
        report = json.loads(options.output.read_text())
    for seed in map(int, options.seeds.split(",")):
        problem: Problem | None = None
        for allocation, rounding in ROWS:
            if any((r["allocation"], r["rounding"], r["seed"]) == (allocation, rounding, seed) for r in report["rows"]):
                continue
            problem = problem or traced(spec, module, train, seed)
            row = {"allocation": allocation, "rounding": rounding, "seed": seed}
            row |= run(spec, module, problem, (train, val), said, options.average_bits, row)
            report["rows"].append(row)
            print(json.dumps(row), flush=True)
            write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="the trained float network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--average-bits", type=float, default=3.22)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def traced(spec: Spec, module: nn.Module, train: FaceDataset, seed: int) -> Problem:
    """Return the problem under exact traces on some images."""
    images = train.balanced_subset(TRACE_IMAGES, seed)
    found = estimate(module, to_input(images.images, spec.input), images.labels, TraceConfig(seed=seed))
    return make_problem(spec, module, {layer.name: layer.weight_trace for layer in found.layers}, PORTABLE_LIMIT)


def run(
    spec: Spec,
    module: nn.Module,
    problem: Problem,
    data: tuple[FaceDataset, FaceDataset],
    said: Tensor,
    average_bits: float,
    row: dict[str, Any],
) -> dict[str, Any]:
    """Share out the bits, quantise, and say what came of it."""
    train, val = data
    seed, start = row["seed"], time.perf_counter()
    if row["allocation"] == "actor-critic":
        tried = RoundedAccuracy(spec, module, problem, val.balanced_subset(SEARCH_IMAGES, seed), PORTABLE_LIMIT)
        widths = search(problem, average_bits, tried, Search(seed=seed))
    else:
        widths = allocate(row["allocation"], problem, average_bits)
    seconds = time.perf_counter() - start
    config = QuantizeConfig(rounding=row["rounding"], seed=seed)
    quant, integer = quantize_model(spec, module, train, config, bits=problem.by_layer(widths))
    quantised = replace(spec, quant=quant)
    logits = predict_logits(integer, val, spec.input)
    divergence = (said.softmax(1) * (said.log_softmax(1) - logits.log_softmax(1))).sum(1).mean()
    right = [(answers.argmax(1) == val.labels).numpy() for answers in (said, logits)]
    scales = 16 * len(widths)
    return {
        "average_bits": problem.average_bits(widths),
        "loss": problem.loss(widths),
        "bound": lower_bound(problem, average_bits),
        "search_s": seconds,
        "accuracy": float(right[1].mean()),
        "kl": float(divergence),
        "top1_agreement": float((logits.argmax(1) == said.argmax(1)).float().mean()),
        "change": asdict(compare_paired(*right)),
        "size_bytes": stored_size(quantised),
        "onnx_bytes": len(export_model(quantised, integer, ExportOptions())),
        "ideal_bytes": (int((problem.weights * widths).sum()) + scales) / 8,
    }


if __name__ == "__main__":
    main()
