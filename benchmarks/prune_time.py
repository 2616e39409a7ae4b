"""What one-shot pruning itself takes: graph, plan and surgery, and scores beside the passes that
they need.

    python benchmarks/prune_time.py [--arch resnet50] -o prune_time.json

Scores need one forward and one backward pass of each image; both are timed interleaved on the same
drawn faces.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from turns import faces, machine, take_turns

from fertool.artifact.atomic import write_atomic
from fertool.config.pruning import SelectionConfig
from fertool.data.pixels import to_input
from fertool.graph.channels import trace_channels
from fertool.losses import cross_entropy
from fertool.models import create
from fertool.pruning import Constraints, Targets, plan_step, score_channels
from fertool.spec import InputSpec

BATCH = 64
HALF = Constraints(Targets(macs=0.5))


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    data, _ = faces(options.images)
    spec, module = create(options.arch, {}, InputSpec(), data.classes)
    module.eval()
    wanted = SelectionConfig(criterion=options.criterion, reconstruct=False)

    def passes() -> float:
        start, targets = time.perf_counter(), data.targets()
        for first in range(0, len(data), BATCH):
            part = slice(first, first + BATCH)
            images = to_input(data.images[part], spec.input).requires_grad_()
            loss = cross_entropy(module(images), targets[part])
            torch.autograd.grad(loss, [images, *module.parameters()])
        return time.perf_counter() - start

    def scores() -> float:
        start = time.perf_counter()
        score_channels(spec, module, wanted, data)
        return time.perf_counter() - start

    seconds = take_turns({"passes": passes, "scores": scores}, options.rounds)
    ratios = [score / own for own, score in zip(seconds["passes"], seconds["scores"], strict=True)]
    scored = score_channels(spec, module, wanted, data)

    def cut() -> float:
        start = time.perf_counter()
        trace_channels(module)
        plan_step(spec, module, HALF, wanted, data, scored=scored).apply(module)
        return time.perf_counter() - start

    report = {
        "arch": options.arch,
        "criterion": options.criterion,
        "images": len(data),
        "rounds": options.rounds,
        "threads": options.threads,
        "passes_s": seconds["passes"],
        "scores_s": seconds["scores"],
        "scores_in_passes": statistics.median(ratios),
        "cut_s": [cut() for _ in range(options.rounds)],
        **machine(),
    }
    print(json.dumps(report, indent=1))
    if options.output:
        write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--arch", default="resnet50")
    parser.add_argument("--criterion", default="taylor")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("-o", "--output", type=Path)
    return parser.parse_args()


if __name__ == "__main__":
    main()
