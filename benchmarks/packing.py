"""What packed weights cost and save: each quantised network's ONNX file beside the same with 8 bits
for every weight.

    python benchmarks/packing.py MIXED.pt … -o packing.json

Bytes against the least there could be (bits / 8 and a float16 scale for each channel), the same
logits to the last bit, the integer convolutions that ONNX Runtime makes, seconds to load, and
latency interleaved, on one thread. Below operator set 18 fertool does not pack: that is the other
file.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.exporting import export_model
from fertool.models import load_model
from fertool.onnx_runtime import session_options
from fertool.runtime import BenchConfig, bench

PACKED, PLAIN = 18, 17
LOADS = 15


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", type=Path, nargs="+", help="quantised networks, .pt files")
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("-o", "--output", type=Path, required=True)
    options = parser.parse_args()
    rows = []
    for model in options.models:
        rows.append(measure(model, options.runs))
        print(json.dumps(rows[-1]), flush=True)
    write_atomic(options.output, json.dumps({"rows": rows}, indent=1).encode())


def measure(model: Path, runs: int) -> dict[str, Any]:
    """Compare the two files of one network."""
    spec, module = load_model(model)
    if spec.quant is None:
        raise SystemExit(f"{model}: not quantised")
    tensors = module.state_dict()
    weights = {name: tensors[f"{name}.weight"] for name in spec.quant.weights}
    bits = {name: rule.stored_bits(len(weights[name])) for name, rule in spec.quant.weights.items()}
    total = sum(
        width * weights[name][0].numel() for name, widths in bits.items() for width in widths
    )
    count = sum(weight.numel() for weight in weights.values())
    images = np.random.default_rng(0).integers(
        0, 256, (64, spec.input.channels, spec.input.size, spec.input.size)
    )
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / f"{name}.onnx" for name in ("plain", "packed")}
        files["plain"].write_bytes(export_model(spec, module, ExportConfig(opset=PLAIN)))
        files["packed"].write_bytes(
            export_model(spec, module, ExportConfig(opset=PACKED, packed=True))
        )
        answers, convolutions = [], []
        for name, file in files.items():
            options, optimised = session_options(threads=1), Path(folder) / f"{name}.optimised.onnx"
            options.optimized_model_filepath = str(optimised)
            session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )
            answers.append(session.run(None, {"images": images.astype(np.uint8)})[0])
            operators = [node.op_type for node in onnx.load(optimised).graph.node]
            convolutions.append(operators.count("QLinearConv"))
        loads: dict[str, list[float]] = {name: [] for name in files}
        for _ in range(LOADS):
            for name, file in files.items():
                start = time.perf_counter()
                onnxruntime.InferenceSession(
                    file, session_options(threads=1), providers=["CPUExecutionProvider"]
                )
                loads[name].append(time.perf_counter() - start)
        timed = bench(
            list(files.values()),
            BenchConfig(warmup=50, runs=runs, threads=1, memory=False, starts=0),
        )
        sizes = {f"{name}_bytes": file.stat().st_size for name, file in files.items()}
    return {
        "file": model.name,
        "arch": spec.arch,
        "weights": count,
        "average_bits": total / count,
        "ideal_bytes": total / 8 + 2 * sum(map(len, bits.values())),
        **sizes,
        "equal": bool(np.array_equal(*answers)),
        "convolutions": convolutions,
        **{f"{name}_load_s": statistics.median(seconds) for name, seconds in loads.items()},
        "latency_s": timed.results[0].latency_s.median,
        "speedup": timed.comparisons[0].speedup,
        "speedup_ci95": timed.comparisons[0].speedup_ci95,
    }


if __name__ == "__main__":
    main()
