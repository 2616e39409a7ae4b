"""Who gets the bits: every allocation at the same mean of bits, and what rounding with compensation
is worth.

    python benchmarks/bits.py MODEL.pt --data fer2013.csv --average-bits 3.22 --seeds 0,1,2 \\
        -o bits.json

A seed draws the images of the traces and of the calibration, and the actor-critic's chance. Nothing
is trained. Accuracies and answers are those of the integer network on the validation images. Rows
that the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from answers import Answers

from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import WEIGHT_LIMITS, QuantizeConfig
from fertool.config.sensitivity import TraceConfig
from fertool.data.pixels import to_input
from fertool.exporting import export_model
from fertool.hessian import estimate_traces
from fertool.models import stored_size_bytes
from fertool.quant import (
    AllocationProblem,
    BitEvaluator,
    RoundedAccuracy,
    allocate,
    load_allocation,
    lower_bound,
    make_problem,
    quantize_model,
)

TRACE_IMAGES, SEARCH_IMAGES = 64, 512
ROWS = (
    ("optimal", "gptq"),
    ("hawq", "gptq"),
    ("actor-critic", "gptq"),
    ("uniform", "gptq"),
    ("optimal", "nearest"),
    ("uniform", "nearest"),
)


def main() -> None:
    options = parse_args()
    answers = Answers.of(options.model, options.data)
    head = {"average_bits": options.average_bits, "size_bytes": options.model.stat().st_size}
    report = answers.report(options.data, options.output, **head)
    for seed in map(int, options.seeds.split(",")):
        problem: AllocationProblem | None = None
        for allocation, rounding in ROWS:
            if any(
                (r["allocation"], r["rounding"], r["seed"]) == (allocation, rounding, seed)
                for r in report["rows"]
            ):
                continue
            problem = problem or traced(answers, seed)
            row = {"allocation": allocation, "rounding": rounding, "seed": seed}
            row |= run(answers, problem, options.average_bits, row)
            report["rows"].append(row)
            print(json.dumps(row), flush=True)
            write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the trained float network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--average-bits", type=float, default=3.22)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def traced(answers: Answers, seed: int) -> AllocationProblem:
    """Return the problem under exact traces on some images."""
    images, spec = answers.train.balanced_subset(TRACE_IMAGES, seed), answers.spec
    found = estimate_traces(
        answers.module, to_input(images.images, spec.input), images.labels, TraceConfig(seed=seed)
    )
    return make_problem(
        spec,
        answers.module,
        {layer.name: layer.weight_trace for layer in found.layers},
        WEIGHT_LIMITS["reduced"],
    )


def run(
    answers: Answers, problem: AllocationProblem, average_bits: float, row: dict[str, Any]
) -> dict[str, Any]:
    """Share out the bits, quantise, and say what came of it."""
    spec, module = answers.spec, answers.module
    seed, start = row["seed"], time.perf_counter()
    evaluator = None
    if load_allocation(row["allocation"]).needs_images:
        images = answers.val.balanced_subset(SEARCH_IMAGES, seed)
        tried = RoundedAccuracy(spec, module, problem, images, WEIGHT_LIMITS["reduced"])
        evaluator = BitEvaluator(tried, seed)
    widths = allocate(row["allocation"], problem, average_bits, evaluator)
    seconds = time.perf_counter() - start
    config = QuantizeConfig(rounding=row["rounding"], seed=seed)
    quant, integer = quantize_model(
        spec, module, answers.train, config, bits=problem.by_layer(widths)
    )
    quantised = replace(spec, quant=quant)
    scales = 16 * len(widths)
    return {
        "average_bits": problem.average_bits(widths),
        "loss": problem.loss(widths),
        "bound": lower_bound(problem, average_bits),
        "search_s": seconds,
        **answers.compared(integer),
        "size_bytes": stored_size_bytes(quantised),
        "onnx_bytes": len(export_model(quantised, integer, ExportConfig())),
        "ideal_bytes": (int((problem.weight_counts * widths).sum()) + scales) / 8,
    }


if __name__ == "__main__":
    main()
