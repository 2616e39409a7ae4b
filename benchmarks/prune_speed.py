"""What rounding pruned widths is worth in ONNX Runtime: each architecture at half its MACs against its unpruned self.

    python benchmarks/prune_speed.py --round-to 1,8,16 --size 48 -o prune_speed.json

Weights are random: speed depends on shapes alone. The files of one architecture are timed interleaved.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from fertool.artifact.atomic import write_atomic
from fertool.errors import FertoolError
from fertool.export import ExportOptions, export_model
from fertool.models import architecture_names, create
from fertool.prune import PruneOptions, Targets, prune
from fertool.runtime import BenchConfig, bench
from fertool.spec import InputSpec

CLASSES = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default=",".join(architecture_names()), help="architectures, separated by commas")
    parser.add_argument("--round-to", default="1,8,16", help="roundings, separated by commas")
    parser.add_argument("--size", type=int, default=48, help="side of the input in pixels")
    parser.add_argument("--target", type=float, default=0.5, help="part of the MACs to keep")
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    torch.set_num_threads(1)
    roundings = [int(part) for part in options.round_to.split(",")]
    rows = []
    print(f"{'architecture':20} {'latency_ms':>10}  speed-up (MACs) per --round-to {', '.join(map(str, roundings))}")
    for arch in options.arch.split(","):
        rows.append(measure(arch, roundings, options.size, options.target, options.runs))
        cells = (f"{entry['speedup']:.2f} ({entry['macs_ratio']:.3f})" for entry in rows[-1]["pruned"])
        print(f"{arch:20} {rows[-1]['latency_s'] * 1e3:10.3f}  {'  '.join(cells)}", flush=True)
    if options.output:
        text = json.dumps({"size": options.size, "target": options.target, "rows": rows}, indent=1)
        write_atomic(options.output, text.encode())


def measure(arch: str, roundings: list[int], size: int, target: float, runs: int) -> dict[str, Any]:
    torch.manual_seed(0)
    spec, module = create(arch, {}, InputSpec(size=size), CLASSES)
    module.eval()
    with tempfile.TemporaryDirectory() as folder:
        paths, plans = [Path(folder) / "unpruned.onnx"], []
        paths[0].write_bytes(export_model(spec, module, ExportOptions(simplify=False)))
        for rounding in roundings:
            try:
                result = prune(spec, module, PruneOptions(Targets(macs=target), round_to=rounding))
            except FertoolError as error:
                print(f"{arch} --round-to {rounding}: {error}")
                continue
            paths.append(Path(folder) / f"round{rounding}.onnx")
            plans.append(result.plan)
            smaller = replace(spec, widths=dict(result.widths))
            paths[-1].write_bytes(export_model(smaller, result.module, ExportOptions(simplify=False)))
        timed = bench(paths, BenchConfig(warmup=30, runs=runs, memory=False))
    pruned = [
        {
            "round_to": plan.round_to,
            "macs_ratio": plan.macs_ratio,
            "params_ratio": plan.params_ratio,
            "speedup": compared.speedup,
            "speedup_ci95": compared.speedup_ci95,
        }
        for plan, compared in zip(plans, timed.comparisons, strict=True)
    ]
    return {"arch": arch, "latency_s": timed.results[0].latency_s.median, "pruned": pruned}


if __name__ == "__main__":
    main()
