"""Who gets the bits: every allocation at the same mean of bits, and what rounding with compensation
is worth.

    python benchmarks/bits.py MODEL.pt --data fer2013.csv --average-bits 3.22 --seeds 0,1,2 \\
        -o bits.json

A seed draws the images of the traces, of the divergences and of the calibration, and the
actor-critic's chance. Nothing is trained. Accuracies and answers are those of the integer network
on the validation images. Rows that the output has already are kept.

With `--layers BITS` each layer alone is rounded to so many bits instead, to the nearest and by
GPTQ, and the divergence that it really causes is compared with what traces and divergences predict
(Spearman's correlation).
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from adaround import round_adaptively
from answers import Answers
from onnxsim_bits import allocate_by_layer
from torch import Tensor, nn

from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import WEIGHT_LIMITS, QuantizeConfig
from fertool.config.sensitivity import TraceConfig
from fertool.data.pixels import to_input
from fertool.exporting import export_model
from fertool.graph.folding import fold_for_inference
from fertool.graph.network import Network
from fertool.hessian import estimate_traces
from fertool.models import stored_size_bytes
from fertool.models.build import require_static
from fertool.models.quantized import QuantizedNet
from fertool.quant import (
    AllocationProblem,
    BitEvaluator,
    RoundedAccuracy,
    allocate,
    load_allocation,
    lower_bound,
    make_problem,
    quantize_model,
    weight_divergences,
)
from fertool.quant.weight_errors import WeightErrors, candidate_errors
from fertool.spec import WEIGHT_BITS

TRACE_IMAGES, SEARCH_IMAGES = 64, 512
ONNXSIM_IMAGES = 128
"""Its default."""
LAYER_IMAGES = 512
ROWS = (
    ("optimal", "coordinate-descent"),
    ("fisher", "coordinate-descent"),
    ("optimal", "gptq"),
    ("fisher", "gptq"),
    ("hawq", "gptq"),
    ("actor-critic", "gptq"),
    ("uniform", "gptq"),
    ("optimal", "nearest"),
    ("fisher", "nearest"),
    ("uniform", "nearest"),
    # Rivals: see adaround.py and onnxsim_bits.py.
    ("fisher", "adaround"),
    ("onnxsim", "gptq"),
    ("onnxsim", "adaround"),
    ("onnxsim", "nearest"),
)


def main() -> None:
    options = parse_args()
    answers = Answers.of(options.model, options.data)
    head = {"average_bits": options.average_bits, "size_bytes": options.model.stat().st_size}
    head["onnxsim"] = metadata.version("onnxsim")
    report = answers.report(options.data, options.output, **head)
    for seed in map(int, options.seeds.split(",")):
        if options.layers:
            report.setdefault("layers", []).append(rank_layers(answers, options.layers, seed))
            write_atomic(options.output, json.dumps(report, indent=1).encode())
            continue
        problem: AllocationProblem | None = None
        for allocation, rounding in chosen_rows(options.rows):
            if any(
                (r["allocation"], r["rounding"], r["seed"]) == (allocation, rounding, seed)
                for r in report["rows"]
            ):
                continue
            problem = problem or traced(answers, seed)
            row = {"allocation": allocation, "rounding": rounding, "seed": seed}
            row |= run(answers, problem, options.average_bits, row, options.calibration_images)
            report["rows"].append(row)
            print(json.dumps(row), flush=True)
            write_atomic(options.output, json.dumps(report, indent=1).encode())


def chosen_rows(text: str | None) -> list[tuple[str, str]]:
    """Return the pairs of an allocation and a rounding that are asked for, all by default."""
    if text is None:
        return list(ROWS)
    pairs = []
    for part in text.split(","):
        allocation, _, rounding = part.partition(":")
        pairs.append((allocation, rounding or "coordinate-descent"))
    return pairs


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the trained float network, a .pt file")
    parser.add_argument("--data", required=True)
    parser.add_argument("--average-bits", type=float, default=3.22)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rows", help="for example optimal:gptq,fisher:gptq")
    parser.add_argument("--calibration-images", type=int, help="default: that of quantize")
    parser.add_argument("--layers", type=int, help="bits of one layer at a time")
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


def with_divergences(
    answers: Answers, problem: AllocationProblem, rounding: str, seed: int
) -> AllocationProblem:
    """Return the problem with what rounding does to the outputs."""
    config = QuantizeConfig(rounding=rounding, seed=seed)  # type: ignore[arg-type]
    divergences = weight_divergences(answers.spec, answers.module, answers.train, config)
    return replace(problem, divergences=divergences)


def rank_layers(answers: Answers, bits: int, seed: int) -> dict[str, Any]:
    """Round each layer alone, and compare what that does with what is predicted of it."""
    problem = traced(answers, seed)
    column = bits - WEIGHT_BITS[0]
    found: dict[str, Any] = {"bits": bits, "seed": seed, "names": problem.names}
    found["trace"] = by_layer(problem, problem.losses[:, column])
    network = fold_for_inference(require_static(answers.module))
    images = answers.val.images[:LAYER_IMAGES]
    fitted = answers.train.balanced_subset(LAYER_IMAGES, seed).images
    for rounding in ("nearest", "gptq"):
        predicted = with_divergences(answers, problem, rounding, seed).divergences
        assert predicted is not None
        errors = candidate_errors(
            network,
            problem.names,
            fitted,
            answers.spec.input,
            limit=WEIGHT_LIMITS["reduced"],
            rounding=rounding,
        )
        measured = []
        for name in problem.names:
            error = errors[name]
            measured.append(caused(network, name, error, column, images, answers))
        found[rounding] = {
            "fisher": by_layer(problem, predicted[:, column]),
            "measured": measured,
        }
        for measure in ("trace", "fisher"):
            values = found[measure] if measure == "trace" else found[rounding][measure]
            found[rounding][f"spearman_{measure}"] = spearman(values, measured)
        print(rounding, {k: v for k, v in found[rounding].items() if "spearman" in k}, flush=True)
    return found


@torch.no_grad()
def caused(
    network: Network,
    name: str,
    errors: WeightErrors,
    column: int,
    images: Tensor,
    answers: Answers,
) -> float:
    """Return the divergence of the network with one layer rounded from the float one, in nats."""
    layer = network.get_submodule(name)
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    kept = (layer.weight.clone(), None if layer.bias is None else layer.bias.clone())
    layer.weight += errors.weight[column]
    if layer.bias is not None:
        layer.bias += errors.bias[column]
    total = 0.0
    for index, batch in enumerate(torch.split(images, 128)):
        logits = network(to_input(batch, answers.spec.input)).log_softmax(1)
        before = answers.logits[128 * index : 128 * index + len(batch)].log_softmax(1)
        total += float((before.exp() * (before - logits)).sum())
    layer.weight.copy_(kept[0])
    if layer.bias is not None and kept[1] is not None:
        layer.bias.copy_(kept[1])
    return total / len(images)


def by_layer(problem: AllocationProblem, losses: Tensor) -> list[float]:
    """Return the sum of the channels' losses of each layer."""
    sums = torch.zeros(len(problem.names), dtype=losses.dtype)
    found: list[float] = sums.index_add_(0, problem.layers, losses).tolist()
    return found


def spearman(first: list[float], second: list[float]) -> float:
    """Return Spearman's rank correlation of values without ties."""
    ranks = torch.tensor([first, second]).double().argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def run(
    answers: Answers,
    problem: AllocationProblem,
    average_bits: float,
    row: dict[str, Any],
    calibration_images: int | None = None,
) -> dict[str, Any]:
    """Share out the bits, quantise, and say what came of it."""
    spec, module, seed = answers.spec, answers.module, row["seed"]
    start = time.perf_counter()
    # AdaRound chooses among the two neighbors of each weight, with the scales of the nearest.
    rounding = "nearest" if row["rounding"] == "adaround" else row["rounding"]
    widths = shared_out(answers, problem, average_bits, row["allocation"], rounding, seed)
    seconds = time.perf_counter() - start
    config = QuantizeConfig(
        rounding=rounding,  # type: ignore[arg-type]
        calibration_images=calibration_images,
        seed=seed,
    )
    by_layer = problem.by_layer(widths)
    quant, integer = quantize_model(spec, module, answers.train, config, bits=by_layer)
    if row["rounding"] == "adaround":
        assert isinstance(integer, QuantizedNet)
        count = config.calibration_count(WEIGHT_BITS[0])
        images = answers.train.balanced_subset(count, seed).images
        network = fold_for_inference(require_static(module))
        round_adaptively(integer, network, dict(quant.weights), images, spec.input)
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


def shared_out(
    answers: Answers,
    problem: AllocationProblem,
    average_bits: float,
    allocation: str,
    rounding: str,
    seed: int,
) -> Tensor:
    """Return the bits of each channel by one of the allocations."""
    spec, module = answers.spec, answers.module
    if allocation == "onnxsim":
        images = answers.train.balanced_subset(ONNXSIM_IMAGES, seed)
        return allocate_by_layer(spec, module, problem, images, average_bits, seed)
    evaluator = None
    if load_allocation(allocation).needs_images:
        images = answers.val.balanced_subset(SEARCH_IMAGES, seed)
        tried = RoundedAccuracy(spec, module, problem, images, WEIGHT_LIMITS["reduced"])
        evaluator = BitEvaluator(tried, seed)
    if load_allocation(allocation).needs_divergences:
        problem = with_divergences(answers, problem, rounding, seed)
    return allocate(allocation, problem, average_bits, evaluator)


if __name__ == "__main__":
    main()
