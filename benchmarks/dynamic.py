"""What a dynamic network saves and what its gate is worth, beside the network that it was pruned
from.

    fertool prune MODEL.pt -o dynamic.pt --schedule dynamic --target-flops 0.45 \\
        --data fer2013.csv --epochs 10
    python benchmarks/dynamic.py MODEL.pt dynamic.pt --data fer2013.csv -o dynamic.json

Beside the figures of `eval` and `bench`: every profile alone, on all images, and the same shares of
the images sent through the profiles at random, which is what a gate that knew nothing would do. The
thresholds of a cascade are cross-fitted: calibrated on one half of the images for the other.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from fertool import cost
from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.data import DataOptions, open_data
from fertool.exporting import export_model
from fertool.metrics import compare_paired, evaluate_logits
from fertool.models import load_model
from fertool.models.profile_network import ProfileNetwork
from fertool.runtime import BenchConfig, bench
from fertool.training import predict_logits
from fertool.workflows.routing import fair_logits, routing_of


def main() -> None:
    options = parse_args()
    (before, whole), (spec, module) = load_model(options.model), load_model(options.dynamic)
    if not isinstance(module, ProfileNetwork) or spec.gates is None:
        raise SystemExit(f"{options.dynamic}: not a dynamic network")
    source = open_data(
        options.data, DataOptions(size=spec.input.size, channels=1, classes=spec.classes)
    )
    val = source.split("val")
    routed = fair_logits(module, val, spec.input)
    routing = routing_of(module, routed, val.labels, spec.input)
    right = {
        "before": (predict_logits(whole, val, spec.input).argmax(1) == val.labels).numpy(),
        "after": (routed.chosen.argmax(1) == val.labels).numpy(),
    }
    evaluation = evaluate_logits(routed.chosen, val.labels, val.classes)
    report: dict[str, Any] = {
        "model": {
            "arch": before.arch,
            "arch_args": dict(before.arch_args),
            "digest": before.digest,
        },
        "options": spec.provenance[-1].options,
        "n": len(val),
        "accuracy_ci95": evaluation.accuracy_ci95,
        "shares": spec.gates.shares,
        "kind": spec.gates.kind,
        "gate_params": cost.count(module.gate, spec.input).params if module.gate else 0,
        "macs_before": before.macs,
        "macs": spec.macs,
        "profile_macs": [cost.count(network, spec.input).macs for network in module.networks],
        "params_before": before.params,
        "params": spec.params,
        "accuracy_before": float(right["before"].mean()),
        "accuracy": float(right["after"].mean()),
        **asdict(compare_paired(right["before"], right["after"])),
        "profile_accuracies": routing.profile_accuracies,
        "random_accuracy": routing.random_accuracy,
        "routing": asdict(routing),
    }
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("before.onnx", "dynamic.onnx")]
        files[0].write_bytes(export_model(before, whole, ExportConfig()))
        files[1].write_bytes(export_model(spec, module, ExportConfig()))
        timed = bench(
            files,
            BenchConfig(runs=options.runs, warmup=100, memory=False, starts=0),
            lambda _: val.images[:256].numpy(),
        ).as_dict()
    for result in timed["results"]:
        result.pop("samples_s")
        result["file"] = Path(result["file"]).name
    for pair in timed["comparisons"]:
        pair |= {side: Path(pair[side]).name for side in ("baseline", "candidate")}
    write_atomic(options.output, json.dumps({**report, "bench": timed}, indent=1).encode())
    print(options.output)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="the network that was pruned, a .pt file")
    parser.add_argument("dynamic", type=Path, help="what `prune --schedule dynamic` made of it")
    parser.add_argument("--data", required=True)
    parser.add_argument("--runs", type=int, default=4000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


if __name__ == "__main__":
    main()
