"""Which small network suits 48 x 48 faces and ONNX Runtime: candidates trained alike, then timed in
float and INT8.

    python benchmarks/native.py --data fer2013.csv -o native.json

A candidate is a plan: `c32s2` is a 3 x 3 convolution to 32 channels with stride 2, `d` a separable
one; `4bot` are four residual blocks, `basic` (3 x 3 twice), `bot` (1 x 1 to half the channels,
3 x 3, 1 x 1), `fused` (3 x 3 to twice the channels, 1 x 1), `mb` (1 x 1 to four times the channels,
3 x 3 depthwise, 1 x 1); all with batch norm and ReLU. A name of the zoo is a candidate too. All
files are timed interleaved, one thread, after the last training. Rows that the output has already
are kept. On a GPU: --epochs 60 --seeds 0,1,2 --device cuda.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from turns import machine

from fertool import cost
from fertool.artifact.atomic import write_atomic
from fertool.config.exporting import ExportConfig
from fertool.config.quantization import QuantizeConfig
from fertool.data import DataOptions, open_data
from fertool.data.dataset import FaceDataset
from fertool.exporting import export_model
from fertool.metrics import evaluate_logits
from fertool.models import architecture_names, create
from fertool.models.blocks import ConvNormAct, initialize_convolutions_
from fertool.quant import quantize_model
from fertool.registry import ARCHITECTURES
from fertool.runtime import BenchConfig, bench
from fertool.spec import InputSpec
from fertool.training import TrainConfig, fit, predict_logits

CANDIDATES = (
    "c32s2-c48s2-1basic-c64-c96s2-2basic",
    # nano_resnet in the zoo.
    "c32s2-1basic-c64s2-2basic-c96s2-2basic",
    "c32s2-2basic-c64s2-2basic-c128s2-4bot",
    "c32s2-c64s2-4bot-c128s2-6bot",
    "c24s2-2fused-c48s2-3fused-c80s2-2fused",
    "c24s2-c40s2-3mb-c64s2-6mb",
    "micro_expnet",
)


def main() -> None:
    options = parse_args()
    source = open_data(options.data, DataOptions(size=InputSpec().size, channels=1))
    train, val = source.split("train"), source.split("val")
    report: dict[str, Any] = {"data": Path(options.data).name, "epochs": options.epochs, "rows": []}
    if options.output.exists():
        report = json.loads(options.output.read_text())
        if report["epochs"] != options.epochs:
            raise SystemExit(f"{options.output} has rows of {report['epochs']} epochs")
    files = options.output.with_suffix("")
    files.mkdir(parents=True, exist_ok=True)
    done = {(row["plan"], row["seed"]) for row in report["rows"]}
    for plan in options.plans.split(","):
        for seed in map(int, options.seeds.split(",")):
            if (plan, seed) not in done:
                report["rows"].append(train_one(plan, seed, train, val, options, files))
                print(json.dumps(report["rows"][-1]), flush=True)
                write_atomic(options.output, json.dumps(report, indent=1).encode())
    report |= machine()
    report["latency_s"] = latencies(files, [row["plan"] for row in report["rows"]])
    write_atomic(options.output, json.dumps(report, indent=1).encode())
    print(json.dumps(report["latency_s"], indent=1))


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default="synth")
    parser.add_argument("--plans", default=",".join(CANDIDATES), help="separated by commas")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--device", default="auto")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, help="JSON; the ONNX files go beside it"
    )
    return parser.parse_args()


@ARCHITECTURES.register("planned")
def planned(*, num_classes: int = 7, in_channels: int = 1, plan: str = "c32s2") -> nn.Module:
    """The network of a plan."""
    return Planned(plan, num_classes, in_channels)


class Planned(nn.Module):
    """Convolutions and residual blocks in the order of a plan, a global average pool,
    a classifier.
    """

    def __init__(self, plan: str, num_classes: int, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = in_channels
        for part in plan.split("-"):
            if conv := re.fullmatch(r"([cd])(\d+)(?:s(\d))?", part):
                kind, out, stride = conv[1], int(conv[2]), int(conv[3] or 1)
                if kind == "d":
                    layers.append(
                        ConvNormAct(channels, channels, 3, stride, groups=channels, act=nn.ReLU)
                    )
                layers.append(
                    ConvNormAct(channels, out, *((3, stride) if kind == "c" else ()), act=nn.ReLU)
                )
                channels = out
            elif blocks := re.fullmatch(r"(\d+)([a-z]+)", part):
                layers += [Residual(branch(blocks[2], channels)) for _ in range(int(blocks[1]))]
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(channels, num_classes)
        initialize_convolutions_(self)

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = self.fc(self.dropout(torch.flatten(self.avgpool(self.features(x)), 1)))
        return logits


class Residual(nn.Module):
    """A branch added to its own input, then ReLU."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.branch = nn.Sequential(*layers)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Map [N, C, H, W] to the block's output."""
        result: Tensor = self.relu(self.branch(x) + x)
        return result


def branch(kind: str, channels: int) -> list[nn.Module]:
    half, double, wide = channels // 2, 2 * channels, 4 * channels
    layers: dict[str, list[tuple[Any, ...]]] = {
        "basic": [(channels, channels, 3), (channels, channels, 3)],
        "bot": [(channels, half), (half, half, 3), (half, channels)],
        "fused": [(channels, double, 3), (double, channels)],
        "mb": [(channels, wide), (wide, wide, 3, 1, wide), (wide, channels)],
    }
    *first, last = layers[kind]
    return [*(ConvNormAct(*sizes, act=nn.ReLU) for sizes in first), ConvNormAct(*last)]


def train_one(
    plan: str,
    seed: int,
    train: FaceDataset,
    val: FaceDataset,
    options: argparse.Namespace,
    files: Path,
) -> dict[str, Any]:
    """Train one candidate.

    Returns its costs and accuracies, and leaves its ONNX files in `files`.
    """
    torch.manual_seed(seed)
    arch, args = (plan, {}) if plan in architecture_names() else ("planned", {"plan": plan})
    spec, module = create(arch, args, InputSpec(), train.classes)
    config = TrainConfig(
        epochs=options.epochs,
        optimizer="sgd",
        lr=0.05,
        weight_decay=5e-4,
        lr_schedule="onecycle",
        start_size=32,
        seed=seed,
    )
    result = fit(module, train, val, spec.input, config, device=options.device)
    quant, integer = quantize_model(
        spec, module, train, QuantizeConfig(seed=seed), lambda done, total: None
    )
    files.joinpath(f"{plan}.onnx").write_bytes(export_model(spec, module, ExportConfig()))
    content = export_model(replace(spec, quant=quant), integer, ExportConfig())
    files.joinpath(f"{plan}.int8.onnx").write_bytes(content)
    counted = cost.count(module, spec.input)
    int8 = evaluate_logits(predict_logits(integer, val, spec.input), val.labels, val.classes)
    return {
        "plan": plan,
        "seed": seed,
        "params": counted.params,
        "macs": counted.macs,
        "accuracy": result.evaluation.accuracy,
        "accuracy_ci95": result.evaluation.accuracy_ci95,
        "int8_accuracy": int8.accuracy,
        "n": int8.n,
        "epoch_s": [record.seconds for record in result.history],
    }


def latencies(files: Path, plans: list[str]) -> dict[str, dict[str, float]]:
    """Return the median seconds of one image on one thread, float and INT8, by plan."""
    names = [(plan, suffix) for plan in dict.fromkeys(plans) for suffix in ("onnx", "int8.onnx")]
    timed = bench(
        [files / f"{plan}.{suffix}" for plan, suffix in names],
        BenchConfig(runs=1000, threads=1, memory=False, starts=0),
    )
    found: dict[str, dict[str, float]] = {}
    for (plan, suffix), entry in zip(names, timed.results, strict=True):
        found.setdefault(plan, {})["int8" if suffix == "int8.onnx" else "fp32"] = (
            entry.latency_s.median
        )
    return found


if __name__ == "__main__":
    main()
