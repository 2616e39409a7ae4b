"""What INT8 is worth in ONNX Runtime: fertool's files, and ONNX Runtime's own quantize_static,
against FP32.

    python benchmarks/int8.py --size 48,224 -o int8_speed.json

Weights are random and batch norms have the statistics of drawn faces, so that ranges are those of a
network in use: speed depends on shapes and ranges alone. The rival quantises the same FP32 export,
per channel, unsigned activations and signed weights, in each of its formats, all operators or those
with weights alone. Networks with HardSwish or SiLU are also timed INT8-friendly, with ReLU, against
the same FP32 network. All files of one architecture and size are timed interleaved, on one thread.
Rows that the output has already are kept.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from settling import drawn_faces, settled
from torch import Tensor, nn

from fertool.artifact import contract
from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data import FaceDataset
from fertool.exporting import export_model
from fertool.models import replace_activations
from fertool.quant import quantize_model
from fertool.runtime import BenchConfig, BenchResult, bench
from fertool.spec import Spec

ARCHITECTURES = (
    "mobilenet_v2,mobilenet_v3_small,mobilenet_v3_large,shufflenet_v2_x1_0,resnet18,efficientnet_b0"
)
IMAGES = 32
FORMATS = {"QDQ": QuantFormat.QDQ, "QOperator": QuantFormat.QOperator}
OPERATORS = {"all": None, "Conv and Gemm": ["Conv", "Gemm"]}


def main() -> None:
    options = parse_args()
    torch.set_num_threads(1)
    logging.disable(
        logging.WARNING
    )  # the rival recommends its preprocessing, of which the export leaves nothing to do
    report: dict[str, Any] = {"rows": []}
    if options.output and options.output.exists():
        report = json.loads(options.output.read_text())
    for size in map(int, options.size.split(",")):
        for arch in options.arch.split(","):
            if any((row["arch"], row["size"]) == (arch, size) for row in report["rows"]):
                continue
            report["rows"].append(measure(arch, size, options.runs))
            print(json.dumps(report["rows"][-1]), flush=True)
            if options.output:
                write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default=ARCHITECTURES, help="architectures, separated by commas")
    parser.add_argument(
        "--size", default="48,224", help="sides of the input in pixels, separated by commas"
    )
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def measure(arch: str, size: int, runs: int) -> dict[str, Any]:
    """Quantise one network in each way, and time the results interleaved with it."""
    faces = drawn_faces(IMAGES, size)
    spec, module = settled(arch, faces)
    networks = {"int8": (spec, module)}
    if replace_activations(spec, module):
        networks["friendly"] = settled(arch, faces, activation="relu")
    with tempfile.TemporaryDirectory() as folder:
        paths = {name: Path(folder) / f"{name}.onnx" for name in ("fp32", *networks)}
        paths["fp32"].write_bytes(export_model(spec, module, ExportConfig()))
        for name, network in networks.items():
            paths[name].write_bytes(integer_file(*network, faces))
        paths |= dict(rivals(paths["fp32"], faces))
        timed = bench(
            [*paths.values()], BenchConfig(warmup=30, runs=runs, threads=1, memory=False, starts=0)
        )
    found = dict(zip([*paths][1:], speedups(timed), strict=True))
    row = {"arch": arch, "size": size, "processor": timed.environment.processor}
    row |= {"latency_s": timed.results[0].latency_s.median, **found.pop("int8")}
    if "friendly" in found:
        row["friendly"] = found.pop("friendly")
    return row | {"quantize_static": [{"settings": name, **ratio} for name, ratio in found.items()]}


def integer_file(spec: Spec, module: nn.Module, faces: FaceDataset) -> bytes:
    """Return the INT8 ONNX file of a float network."""
    quant, integer = quantize_model(spec, module, faces, QuantizeConfig(calibration_images=IMAGES))
    return export_model(replace(spec, quant=quant), integer, ExportConfig())


def speedups(timed: BenchResult) -> Iterator[dict[str, Any]]:
    """Yield of each file against the first how many times faster it is."""
    for pair in timed.comparisons:
        yield {"speedup": pair.speedup, "speedup_ci95": pair.speedup_ci95}


def rivals(source: Path, faces: FaceDataset) -> Iterator[tuple[str, Path]]:
    """Quantise an ONNX file by ONNX Runtime's own tool in each way; yields name and file."""
    for format_name, quant_format in FORMATS.items():
        for scope, operators in OPERATORS.items():
            name = f"{format_name}, {scope}"
            target = source.with_name(f"{name}.onnx")
            quantize_static(
                str(source),
                str(target),
                Calibration(faces.images),
                quant_format=quant_format,
                op_types_to_quantize=operators,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
            yield name, target


class Calibration(CalibrationDataReader):  # type: ignore[misc]  # the package has no annotations
    """Gives the images one by one."""

    def __init__(self, images: Tensor) -> None:
        self._batches = iter([{contract.IMAGES: image.numpy()} for image in torch.split(images, 1)])

    def get_next(self) -> dict[str, Any] | None:
        """Return the next input, or None."""
        return next(self._batches, None)


if __name__ == "__main__":
    main()
