"""Which strides suit 48 x 48 images: validation accuracy and latency of an architecture with early
strides removed.

    python benchmarks/small_input.py --data fer2013.csv --epochs 4 --share 3 -o small_input.json

The same short training for every variant, on every `--share`-th training image, at a reduced width,
so that two CPU cores suffice; on a GPU: --share 1 --epochs 40 --width 1 --seeds 0,1,2. Rows that
the file has already are kept.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.data import DataOptions, open_data
from fertool.data.dataset import FaceDataset
from fertool.exporting import export_model
from fertool.models import create
from fertool.runtime import BenchConfig, bench
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit

STRIDES = (
    {"stem_stride": 2, "early_stride": 2},
    {"stem_stride": 2, "early_stride": 1},
    {"stem_stride": 1},
)
VARIANTS: dict[str, tuple[dict[str, Any], ...]] = {
    "mobilenet_v3_small": STRIDES,
    "mobilenet_v3_large": STRIDES,
    "mobilenet_v2": STRIDES,
    "efficientnet_b0": STRIDES,
    "resnet18": (
        {"stem_kernel": 7, "stem_stride": 2, "stem_pool": True},
        {"stem_kernel": 3, "stem_stride": 2, "stem_pool": False},
        {"stem_kernel": 3, "stem_stride": 1, "stem_pool": True},
    ),
    "shufflenet_v2_x1_0": ({"stem_stride": 2}, {"stem_stride": 1}),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synth")
    parser.add_argument("--arch", default=",".join(VARIANTS))
    parser.add_argument("--width", type=float, default=0.5)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--share", type=int, default=3, help="train on every N-th image")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    source = open_data(options.data, DataOptions(size=48, channels=1))
    train, val = source.split("train"), source.split("val")
    train = train.subset(torch.arange(0, len(train), options.share))
    settings = {"data": Path(options.data).name, "width": options.width, "epochs": options.epochs}
    report: dict[str, Any] = {**settings, "share": options.share, "rows": []}
    if options.output and options.output.exists():
        found = json.loads(options.output.read_text())
        if {**found, "rows": []} != report:
            parser.error(f"{options.output} has other settings")
        report = found
    for arch in options.arch.split(","):
        seeds = [int(seed) for seed in options.seeds.split(",")]
        made = [row["seed"] for row in report["rows"] if row["arch"] == arch]
        missing = [seed for seed in seeds if made.count(seed) < len(VARIANTS[arch])]
        report["rows"] = [
            row for row in report["rows"] if row["arch"] != arch or row["seed"] not in missing
        ]
        speeds = latencies(arch, options.width) if missing else []
        for variant, latency in zip(VARIANTS[arch], speeds, strict=bool(missing)):
            for seed in missing:
                row = accuracy(arch, variant, options.width, train, val, options.epochs, seed)
                row = {"arch": arch, "variant": variant, "seed": seed, "latency_s": latency, **row}
                report["rows"].append(row)
                print(json.dumps(row), flush=True)
                if options.output:
                    write_atomic(options.output, json.dumps(report, indent=1).encode())


def network(arch: str, variant: dict[str, Any], width: float) -> Any:
    return create(
        arch, {"width_mult": width, "stem_stride": 2, **variant}, InputSpec(), tuple("abcdefg")
    )


def latencies(arch: str, width: float) -> list[float]:
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for index, variant in enumerate(VARIANTS[arch]):
            paths.append(Path(folder) / f"{index}.onnx")
            spec, module = network(arch, variant, width)
            paths[-1].write_bytes(export_model(spec, module.eval(), ExportConfig(simplify=False)))
        timed = bench(paths, BenchConfig(warmup=20, runs=300, memory=False, starts=0))
    return [entry.latency_s.median for entry in timed.results]


def accuracy(
    arch: str,
    variant: dict[str, Any],
    width: float,
    train: FaceDataset,
    val: FaceDataset,
    epochs: int,
    seed: int,
) -> dict[str, Any]:
    torch.manual_seed(seed)
    spec, module = network(arch, variant, width)
    config = TrainConfig(epochs=epochs, lr=2e-3, warmup_epochs=0.5, seed=seed)
    found = fit(module, train, val, spec.input, config).evaluation
    return {
        "accuracy": found.accuracy,
        "accuracy_ci95": found.accuracy_ci95,
        "n": found.n,
        "images": len(train),
    }


if __name__ == "__main__":
    main()
