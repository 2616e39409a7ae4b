"""How fast and how right Hessian traces are: exact ones, probes as fertool draws them, and what
others do.

    pip install --no-deps pyhessian==0.1
    python benchmarks/hessian.py [MODEL] [--data fer2013.csv] [-o result.json]

Without MODEL an untrained ResNet-18 for 48 x 48 gray images; without --data drawn faces. Times are
medians of rounds in which all methods take turns. Units are a forward and backward pass of all
images as in training, and one iteration of PyHessian's trace, which is one number for the whole
network, on a graph made before. A plain probe is one backward pass of the random combination summed
over all images, squared afterwards: the same mean, more noise. With ReLUs and frozen BN the
cross-entropy's traces, which Hutchinson's products estimate, are the exact ones too.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pyhessian import hessian as PyHessian
from torch import Tensor, nn

from fertool import models
from fertool.artifact.atomic import write_atomic
from fertool.config.sensitivity import TraceConfig, TraceMethod
from fertool.data import DataOptions, open_data
from fertool.data.labels import BASIC
from fertool.data.pixels import to_input
from fertool.hessian import LayerSensitivity, estimate_traces, weighted_layers
from fertool.losses import output_factor
from fertool.spec import InputSpec

Traces = dict[str, np.ndarray]
"""Of "weight" and "activation", those of all channels of all layers in one row."""

UNIT = "forward + backward"
OTHER = "PyHessian, one iteration"


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    spec, module = (
        models.load_model(args.model)
        if args.model
        else models.create("resnet18", {}, InputSpec(), tuple(BASIC))
    )
    module.eval()
    options = DataOptions(size=spec.input.size, channels=spec.input.channels, classes=spec.classes)
    faces = open_data(args.data, options).split("train").balanced_subset(args.samples, args.seed)
    images, labels = to_input(faces.images, spec.input), faces.labels

    def ours(method: TraceMethod) -> Callable[[], Traces]:
        config = TraceConfig(
            method, len(images), args.probes, seed=args.seed, batch_size=len(images)
        )
        return lambda: flat(estimate_traces(module, images, labels, config).layers)

    warnings.filterwarnings("ignore", "Using backward")  # PyHessian keeps a graph on purpose
    whole = PyHessian(
        copy.deepcopy(module), nn.CrossEntropyLoss(), data=(images, labels), cuda=False
    )
    methods: dict[str, Callable[[], Traces | None]] = {
        UNIT: lambda: forward_backward(module, images, labels),
        OTHER: lambda: whole.trace(maxIter=1) and None,
        "exact": ours("exact"),
        f"{args.probes} probes": ours("probe"),
        f"{args.probes} plain probes": lambda: plain_probes(module, images, args.probes, args.seed),
        f"{args.probes} products": ours("hutchinson"),
    }
    seconds, traces = take_turns(methods, args.rounds)
    exact = traces["exact"]
    if exact is None:
        raise AssertionError("our methods return traces")
    rows = [row(name, seconds, traces, exact) for name in methods]
    report = {
        "arch": spec.arch,
        "arch_args": dict(spec.arch_args),
        "model": args.model.name if args.model else "untrained",
        "data": Path(args.data).name,
        "samples": len(images),
        "threads": args.threads,
        "rounds": args.rounds,
        "seed": args.seed,
        "channels": len(exact["weight"]),
        "methods": rows,
    }
    print_table(report)
    if args.output:
        write_atomic(args.output, json.dumps(report, indent=2).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time Hessian traces and compare them with exact ones."
    )
    parser.add_argument(
        "model", type=Path, nargs="?", help="a float .pt file; default: an untrained ResNet-18"
    )
    parser.add_argument(
        "--data", default="synth:280", help="any data source of fertool; default: drawn faces"
    )
    parser.add_argument(
        "--samples", type=int, default=32, help="training images, balanced over the classes"
    )
    parser.add_argument("--probes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="also write the figures as JSON")
    return parser.parse_args()


def take_turns(
    methods: dict[str, Callable[[], Traces | None]], rounds: int
) -> tuple[dict[str, list[float]], dict[str, Traces | None]]:
    """Run every method once to warm up and then interleaved.

    Returns all times in seconds and the first results.
    """
    traces = {name: method() for name, method in methods.items()}
    seconds: dict[str, list[float]] = {name: [] for name in methods}
    for _ in range(rounds):
        for name, method in methods.items():
            start = time.perf_counter()
            method()
            seconds[name].append(time.perf_counter() - start)
    return seconds, traces


def forward_backward(module: nn.Module, images: Tensor, labels: Tensor) -> None:
    """Run one training step without the update."""
    loss = nn.functional.cross_entropy(module(images), labels)
    loss.backward()  # type: ignore[no-untyped-call]
    module.zero_grad()


def plain_probes(module: nn.Module, images: Tensor, probes: int, seed: int) -> Traces:
    """Return the mean over probes of squared weight gradients,
    one ordinary backward pass for each.
    """
    weights = [layer.weight for layer in weighted_layers(module).values()]
    generator = torch.Generator().manual_seed(seed)
    logits = module(images)
    factor = output_factor(logits.detach())
    total = [torch.zeros(len(weight)) for weight in weights]
    for _ in range(probes):
        signs = 2.0 * torch.randint(2, logits.shape, generator=generator) - 1
        direction = torch.einsum("nkj,nj->nk", factor, signs) / len(images) ** 0.5
        gradients = torch.autograd.grad(logits, weights, direction, retain_graph=True)
        for sums, gradient in zip(total, gradients, strict=True):
            sums += gradient.flatten(1).square().sum(1) / probes
    return {"weight": torch.cat(total).numpy()}


def flat(layers: tuple[LayerSensitivity, ...]) -> Traces:
    kinds = ("weight", "activation")
    return {
        kind: np.concatenate([getattr(layer, f"{kind}_trace") for layer in layers])
        for kind in kinds
    }


def row(
    name: str, seconds: dict[str, list[float]], traces: dict[str, Traces | None], exact: Traces
) -> dict[str, Any]:
    """Return one method's times and, where it has traces, how they compare with exact ones,
    by kind.
    """
    passes, iterations = (
        float(
            np.median([own / unit for own, unit in zip(seconds[name], seconds[other], strict=True)])
        )
        for other in (UNIT, OTHER)
    )
    result = {
        "method": name,
        "seconds": seconds[name],
        "forward_backward_passes": passes,
        "pyhessian_iterations": iterations,
    }
    for kind, estimated in (traces[name] or {}).items():
        result[kind] = compare(estimated, exact[kind])
    return result


def compare(estimated: np.ndarray, exact: np.ndarray) -> dict[str, float]:
    """Return the rank correlation with exact traces, the distance of the median channel,
    the share of negatives.
    """
    live = exact > 0
    return {
        "spearman": spearman(estimated, exact),
        "median_channel_error": float(np.median(np.abs(estimated[live] / exact[live] - 1))),
        "negative": float(np.mean(estimated < 0)),
    }


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return the rank correlation; equal values share their mean rank."""
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    _, which, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count - 1) / 2)[which]


def print_table(report: dict[str, Any]) -> None:
    print(
        f"{report['arch']} ({report['model']}), {report['channels']} channels, "
        f"{report['samples']} images, ",
        end="",
    )
    print(f"{report['data']}, {report['threads']} threads")
    heads = f"{'seconds':>9}{'passes':>8}{'PyHessian':>11}"
    print(
        f"{'method':<26}{heads}{'traces by':>12}{'Spearman':>10}"
        f"{'median error':>14}{'negative':>10}"
    )
    for entry in report["methods"]:
        times = (
            np.median(entry["seconds"]),
            entry["forward_backward_passes"],
            entry["pyhessian_iterations"],
        )
        line = f"{entry['method']:<26}{times[0]:>9.2f}{times[1]:>8.1f}{times[2]:>11.1f}"
        for kind in [kind for kind in ("weight", "activation") if kind in entry] or [""]:
            found = entry.get(kind)
            right = ""
            if found:
                right = (
                    f"{found['spearman']:>10.4f}{found['median_channel_error']:>14.2%}"
                    f"{found['negative']:>10.1%}"
                )
            print(f"{line:<54}{kind:>12}{right}".rstrip())
            line = ""


if __name__ == "__main__":
    main()
