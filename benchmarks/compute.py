"""Quantized files against their float inputs in ONNX Runtime: no file may be slower.

    python benchmarks/compute.py --arch micro_expnet,nano_resnet --size 48,224 -o compute.json

Networks have random weights, and batch norms that have seen drawn faces: speed depends on shapes
and ranges alone. Of each its half is measured too, with half of its MACs pruned. Every network is
quantized by `--compute int8`, by `float`, by `auto` with the shipped table, and with --measure by
`auto` with the kernel times of this machine; all files of one network are timed interleaved with
the float file, on one thread. Rows that the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from settling import calibrate_norms_, drawn_faces, settled

from fertool.artifact.atomic import write_atomic
from fertool.config.quantization import QuantizeConfig
from fertool.quant import quantize_model
from fertool.reporter import SILENT
from fertool.runtime.environment import processor_kind
from fertool.workflows.compute import choose_compute
from fertool.workflows.model import Model
from fertool.workflows.network_latency import bench_networks
from fertool.workflows.prune import prune

ARCHITECTURES = "micro_expnet,nano_resnet,mobilenet_v3_small,shufflenet_v2_x0_5"
IMAGES = 32


def main() -> None:
    options = parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"processor": processor_kind(), "runs": options.runs, "rows": []}
    if options.output.exists():
        report = json.loads(options.output.read_text())
    for size in map(int, options.size.split(",")):
        for arch in options.arch.split(","):
            for half in (False, True):
                key = {"arch": arch, "size": size, "half": half}
                if any(key.items() <= row.items() for row in report["rows"]):
                    continue
                report["rows"].append(key | measure(arch, size, half, options))
                print(json.dumps(report["rows"][-1]), flush=True)
                write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default=ARCHITECTURES, help="architectures, separated by commas")
    parser.add_argument(
        "--size", default="48,224", help="sides of the input in pixels, separated by commas"
    )
    parser.add_argument("--runs", type=int, default=400)
    parser.add_argument("--measure", action="store_true", help="also `auto` with `measure`")
    parser.add_argument("-o", "--output", type=Path, required=True)
    return parser.parse_args()


def measure(arch: str, size: int, half: bool, options: argparse.Namespace) -> dict[str, Any]:
    """Quantize one network in each way, and time the results interleaved with it."""
    faces = drawn_faces(IMAGES, size)
    model = Model(*settled(arch, faces))
    if half:
        model = prune(model, flops=0.5, bench=False)
        calibrate_norms_(model.module, model.spec, faces)

    ways = {name: QuantizeConfig(compute=name) for name in ("int8", "float", "auto")}
    if options.measure:
        ways["measured"] = QuantizeConfig(compute="auto", measure=True)
    networks = {"input": (model.spec, model.module)}
    expected = {}
    for name, config in ways.items():
        config = replace(config, rounding="nearest", calibration_images=IMAGES)
        choice = choose_compute(model, config, faces, SILENT)
        quant, module = quantize_model(model.spec, model.module, faces, config, choice=choice)
        networks[name] = (replace(model.spec, quant=quant), module)
        if quant.compute is not None:
            expected[name] = {
                "float_layers": len(quant.float_layers),
                "layers": len(quant.weights),
                "expected_speedup": quant.compute.expected_speedup,
            }
    timed = bench_networks(*networks.values(), runs=options.runs)
    row: dict[str, Any] = {"latency_s": timed.results[0].latency_s.median}
    for name, pair in zip(ways, timed.comparisons, strict=True):
        row[name] = {"speedup": pair.speedup, "speedup_ci95": pair.speedup_ci95}
        row[name] |= expected.get(name, {})
    return row


if __name__ == "__main__":
    main()
