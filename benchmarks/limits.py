"""How often `bench` is right about files whose speeds are known, as a CI job would use it.

Chains of equal convolutions: 20 blocks against a copy of the same file, against 21 blocks (5 %
slower) and 22 (10 %). Counts how often the interval of a file against its copy has 1 in it, how
often the slower file is found, and with which exit codes `bench --against` ends.

    python benchmarks/limits.py -o limits.json
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import platform
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from fertool.cli.app import run
from fertool.config.foreign_files import ForeignModel
from fertool.runtime import BenchConfig, bench
from fertool.runtime.environment import read_environment

BLOCKS = {"file": 20, "copy": 20, "slower_5": 21, "slower_10": 22}
CHANNELS = 16
CLASSES = tuple("abcdefg")
SIZE = 48


def write_chain(path: Path, blocks: int) -> Path:
    """Write an ONNX file of so many equal convolutions; returns its path."""
    generator = np.random.default_rng(0)
    constants: list[Any] = []
    nodes = [_convolution(constants, generator, "images", "value_0", 1, strides=[2, 2])]
    for number in range(blocks):
        before, between = f"value_{number}", f"sum_{number}"
        nodes.append(_convolution(constants, generator, before, between, CHANNELS))
        nodes.append(helper.make_node("Relu", [between], [f"value_{number + 1}"]))
    weight = generator.normal(size=(CHANNELS, len(CLASSES))).astype(np.float32)
    constants.append(numpy_helper.from_array(weight, "classifier"))
    nodes.append(helper.make_node("GlobalAveragePool", [f"value_{blocks}"], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))
    nodes.append(helper.make_node("MatMul", ["features", "classifier"], ["logits"]))

    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 1, SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", len(CLASSES)])
    graph = helper.make_graph(nodes, "chain", [images], [logits], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    # Of the oldest ONNX Runtime that is supported.
    model.ir_version = 8
    onnx.save(model, path)
    return path


def _convolution(
    constants: list[Any],
    generator: np.random.Generator,
    before: str,
    after: str,
    channels: int,
    **attributes: Any,
) -> onnx.NodeProto:
    name = f"weight_of_{after}"
    weight = generator.normal(size=(CHANNELS, channels, 3, 3)) * 0.05
    constants.append(numpy_helper.from_array(weight.astype(np.float32), name))
    return helper.make_node("Conv", [before, name], [after], pads=[1, 1, 1, 1], **attributes)


def count_intervals(files: dict[str, Path], repeats: int, runs: int) -> dict[str, Any]:
    """Bench a file, its copy and the slower ones, and count what the intervals say."""
    config = BenchConfig(
        runs=runs, starts=0, memory=False, foreign=ForeignModel(CLASSES, input_size=SIZE)
    )
    rows: dict[str, list[tuple[float, float, float]]] = {name: [] for name in files}
    for _ in range(repeats):
        found = bench(list(files.values()), config)
        for entry in found.comparisons:
            name = Path(entry.candidate).stem
            rows[name].append((entry.speedup, *entry.speedup_ci95))
    report: dict[str, Any] = {"repeats": repeats, "runs": runs, "speedups_and_intervals": rows}
    report["copy_has_1_inside"] = sum(low <= 1 <= high for _, low, high in rows["copy"])
    for name in ("slower_5", "slower_10"):
        report[f"{name}_found"] = sum(high < 1 for _, _, high in rows[name])
    return report


def count_exit_codes(files: dict[str, Path], repeats: int, runs: int) -> dict[str, Any]:
    """Bench a copy and a slower file against older results, and count the exit codes."""
    folder = files["file"].parent
    told = ("--classes", ",".join(CLASSES), "--input-size", str(SIZE))
    quick = ("--runs", str(runs), "--starts", "0")
    old = folder / "old.json"
    if _run(["bench", str(files["file"]), "-o", str(old), *told, *quick]) != 0:
        raise SystemExit("the older results could not be made")
    report: dict[str, Any] = {"repeats": repeats, "runs": runs, "max_regression": "5%"}
    for name in ("copy", "slower_10"):
        arguments = ["bench", str(files[name]), "--against", str(old), "--max-regression", "5%"]
        codes = []
        for _ in range(repeats):
            codes.append(_run([*arguments, *told, *quick]))
        report[f"{name}_exit_codes"] = codes
    return report


def _run(arguments: Sequence[str]) -> int:
    story = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(story):
        code = run(list(arguments))
    # Neither fine nor a missed limit.
    if code not in (0, 3):
        print(story.getvalue(), flush=True)
    return code


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--gate-repeats", type=int, default=10)
    parser.add_argument("--runs", type=int, default=1000)
    options = parser.parse_args()
    load_before = os.getloadavg() if hasattr(os, "getloadavg") else None
    with tempfile.TemporaryDirectory() as folder:
        files = {}
        for name, blocks in BLOCKS.items():
            files[name] = write_chain(Path(folder) / f"{name}.onnx", blocks)
        found: dict[str, Any] = {
            "environment": read_environment("onnxruntime").__dict__,
            "machine": platform.machine(),
            "load_average_before": load_before,
        }
        # Printed as they come: each part takes minutes.
        found["gate"] = gate = count_exit_codes(files, options.gate_repeats, options.runs)
        print(f"exit codes of the copy: {gate['copy_exit_codes']}")
        print(f"exit codes of 10 % slower: {gate['slower_10_exit_codes']}", flush=True)
        found["intervals"] = counts = count_intervals(files, options.repeats, options.runs)
        print(
            f"1 inside the interval of a copy: {counts['copy_has_1_inside']} of {options.repeats}"
        )
        print(f"5 % slower found: {counts['slower_5_found']} of {options.repeats}")
        print(f"10 % slower found: {counts['slower_10_found']} of {options.repeats}")
    found["load_average_after"] = os.getloadavg() if hasattr(os, "getloadavg") else None
    if options.output:
        options.output.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
