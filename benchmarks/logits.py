"""Seconds of an epoch of distillation from a logits file against running the teacher beside the
student.

    python benchmarks/logits.py -o logits.json

Both train the same student on the same images with the same loop; only where the teacher's answers
come from differs. Turns of one epoch alternate; the ratio is that of the medians, with a bootstrap
interval over rounds. The weights are random: speed does not depend on them. What recording costs,
once, stands beside it.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from turns import faces, machine, take_turns

from fertool.artifact.atomic import write_atomic
from fertool.data import FaceDataset
from fertool.device import resolve_device
from fertool.distillation import KnowledgeDistillation, Teacher
from fertool.distillation.cached_logits import (
    CachedLogits,
    compute_cached_logits,
    load_logits,
    plan_cached_logits,
    save_logits,
)
from fertool.models import create
from fertool.runtime.time_ratios import paired_ratio
from fertool.spec import InputSpec, ProvenanceStep, Spec
from fertool.training import TrainConfig, fit


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    train, val = faces(options.images)
    config = TrainConfig(epochs=1, batch_size=options.batch_size, seed=options.seed)
    (spec, student), (its, module) = (
        new(arch, train, options.seed) for arch in (options.student, options.teacher)
    )
    teacher = Teacher(module.eval(), its.input, its.classes)
    recording, costs = record(teacher, train, spec, config, options.views)

    def epoch(*teachers: Any) -> float:
        objective = KnowledgeDistillation(teachers, input=spec.input, classes=spec.classes)
        return (
            fit(copy.deepcopy(student), train, val, spec.input, config, objective=objective)
            .history[0]
            .seconds
        )

    seconds = take_turns(
        {"live": lambda: epoch(teacher), "file": lambda: epoch(*recording.teachers)}, options.rounds
    )
    live, file = (np.array(times)[:, None] for times in seconds.values())
    speedup, interval = paired_ratio(live, file)
    report = {
        "teacher": options.teacher,
        "student": options.student,
        "images": len(train),
        "batch_size": options.batch_size,
        "threads": options.threads,
        "rounds": options.rounds,
        **machine(),
        "views": options.views,
        **costs,
        "live_s": seconds["live"],
        "file_s": seconds["file"],
        "speedup": speedup,
        "speedup_ci95": interval,
    }
    print_report(report)
    if options.output:
        write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", default="resnet50")
    parser.add_argument("--student", default="micro_expnet")
    parser.add_argument(
        "--images", type=int, default=1024, help="drawn faces that a turn trains on"
    )
    parser.add_argument("--views", type=int, default=2, help="views in the file")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each kind")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of PyTorch, in both"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    return parser.parse_args()


def new(arch: str, train: FaceDataset, seed: int) -> tuple[Spec, torch.nn.Module]:
    torch.manual_seed(seed)
    return create(arch, {}, InputSpec(), train.classes)


def record(
    teacher: Teacher, train: FaceDataset, spec: Spec, config: TrainConfig, views: int
) -> tuple[CachedLogits, dict[str, float]]:
    """Return what a student reads from the file, and what the file costs: seconds and bytes."""
    step = ProvenanceStep("benchmark")
    plan = plan_cached_logits(
        train, views, config.augmentation, config.seed, ["random weights"], step
    )
    start = time.perf_counter()
    recording = compute_cached_logits(
        plan, [teacher], train, spec.input, device=resolve_device("cpu")
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "teacher.logits"
        save_logits(path, recording)
        seconds = time.perf_counter() - start
        return load_logits(path), {"recording_s": seconds, "file_bytes": path.stat().st_size}


def print_report(report: Mapping[str, Any]) -> None:
    low, high = report["speedup_ci95"]
    for name in ("live", "file"):
        print(
            f"{name:<6}{float(np.median(report[f'{name}_s'])):>8.2f} s an epoch"
            f" of {report['images']} images"
        )
    print(f"the file is faster by {report['speedup']:.2f} [{low:.2f}, {high:.2f}]")
    print(
        f"recording {report['views']} views took {report['recording_s']:.2f} s,"
        f" {report['file_bytes']:,} bytes"
    )


if __name__ == "__main__":
    main()
