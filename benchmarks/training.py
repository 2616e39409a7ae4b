"""Images per second of fertool's training loop against a plain PyTorch loop: same network,
optimiser and maths.

    python benchmarks/training.py --arch resnet18,mobilenet_v3_small -o training.json

The plain loop is what a tutorial teaches: a DataLoader, with and without worker processes, that
changes one image after the other with PIL (flip, rotation, brightness, contrast) and torch
(normalising, erasing), mixup by batch, the default memory format. Turns of one epoch alternate,
each loop in a process of its own; the ratio is that of the medians, with a bootstrap interval over
rounds. Where `--precision auto` is bf16 on this processor, fertool's loop runs so too: no longer
the same maths, and reported apart.

Then, on one batch: what augmentation takes of a step, and channels-last against contiguous by
number of threads.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from turns import Apart, faces, machine, take_turns

from fertool.artifact.atomic import write_atomic
from fertool.config.training import AugmentConfig, PrecisionName
from fertool.data import FaceDataset
from fertool.data.augment import augment, mix
from fertool.data.pixels import to_input
from fertool.models import create
from fertool.precision import resolve_precision
from fertool.runtime.time_ratios import paired_ratio
from fertool.spec import InputSpec, Spec
from fertool.training import TrainConfig, fit

LARGEST_ASPECT = 3.3
FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    config = plain_config(options)
    train, _ = faces(options.images)
    report: dict[str, Any] = {
        "images": len(train),
        "batch_size": options.batch_size,
        "threads": options.threads,
        "rounds": options.rounds,
        **machine(),
        "networks": [],
    }
    for arch in options.arch.split(","):
        torch.manual_seed(options.seed)
        spec, module = create(arch, {}, InputSpec(), train.classes)
        workers = [int(count) for count in options.workers.split(",")]
        found = {
            "arch": arch,
            "loops": compare_loops(arch, module, workers, options),
            "step": take_apart(spec, module, train, config, options.rounds),
            "formats": compare_formats(
                spec, module, train, config, options.format_threads, options.rounds
            ),
        }
        report["networks"].append(found)
        print_network(found)
        if options.output:
            write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--arch", default="resnet18,mobilenet_v3_small", help="networks, separated by commas"
    )
    parser.add_argument(
        "--images", type=int, default=1024, help="drawn faces that a turn trains on"
    )
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each loop")
    parser.add_argument("--threads", type=int, default=cores, help="of PyTorch, in both loops")
    parser.add_argument(
        "--workers", default=f"0,{cores}", help="worker counts of the plain loop, by commas"
    )
    parser.add_argument(
        "--format-threads",
        default=None,
        help="thread counts for the formats; default: 1 to all cores",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    counts = options.format_threads.split(",") if options.format_threads else range(1, cores + 1)
    options.format_threads = [int(count) for count in counts]
    return options


def plain_config(options: argparse.Namespace) -> TrainConfig:
    """Return the options of both loops."""
    return TrainConfig(
        epochs=1,
        batch_size=options.batch_size,
        optimizer="sgd",
        lr=0.01,
        precision="fp32",
        seed=options.seed,
    )


def compare_loops(
    arch: str, module: nn.Module, workers: list[int], options: argparse.Namespace
) -> dict[str, Any]:
    """Let the loops take turns of one epoch.

    Returns their seconds and how many times faster fertool's are.
    """
    loops = {"fertool": Apart(own_loop, arch, "fp32", options)}
    if resolve_precision("auto", torch.device("cpu"), module) == torch.bfloat16:
        loops["fertool, bf16"] = Apart(own_loop, arch, "bf16", options)
    for count in workers:
        loops[f"plain, {count} workers"] = Apart(plain_loop, arch, count, options)
    seconds = take_turns(loops, options.rounds)
    for loop in loops.values():
        loop.close()
    plain = [name for name in loops if name.startswith("plain")]
    best = min(plain, key=lambda name: float(np.median(seconds[name])))
    rows = []
    for name, times in seconds.items():
        row = {
            "loop": name,
            "seconds": times,
            "images_per_s": options.images / float(np.median(times)),
        }
        if name not in plain:
            baseline, candidate = np.array(seconds[best]), np.array(times)
            row["speedup"], row["speedup_ci95"] = paired_ratio(
                baseline[:, None], candidate[:, None]
            )
        rows.append(row)
    return {"rows": rows, "best_plain": best}


def own_loop(
    arch: str, precision: PrecisionName, options: argparse.Namespace
) -> Callable[[], float]:
    """Return fertool's epoch."""
    spec, module, train, val = prepared(arch, options)
    config = replace(plain_config(options), precision=precision)
    return lambda: fit(copy.deepcopy(module), train, val, spec.input, config).history[0].seconds


def plain_loop(arch: str, workers: int, options: argparse.Namespace) -> Callable[[], float]:
    """Return the plain loop's epoch."""
    return PlainLoop(*prepared(arch, options), plain_config(options), workers).epoch


def prepared(
    arch: str, options: argparse.Namespace
) -> tuple[Spec, nn.Module, FaceDataset, FaceDataset]:
    """Return what a loop trains, and on what."""
    torch.set_num_threads(options.threads)
    train, val = faces(options.images)
    torch.manual_seed(options.seed)
    return *create(arch, {}, InputSpec(), train.classes), train, val


class PlainLoop:
    """An epoch of training and validation as an ordinary script has it."""

    def __init__(
        self,
        spec: Spec,
        module: nn.Module,
        train: FaceDataset,
        val: FaceDataset,
        config: TrainConfig,
        workers: int,
    ) -> None:
        self.spec, self.start, self.config = spec, module, config
        self.loader = DataLoader(
            PlainFaces(train, spec.input, config.augmentation),
            batch_size=config.batch_size,
            shuffle=True,
            num_workers=workers,
            persistent_workers=workers > 0,
        )
        self.val = DataLoader(PlainFaces(val, spec.input, None), batch_size=256)

    def epoch(self) -> float:
        """Train a fresh copy of the network; returns the seconds."""
        module, config = copy.deepcopy(self.start), self.config
        optimizer = torch.optim.SGD(
            module.parameters(), config.lr, config.momentum, nesterov=config.nesterov
        )
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, len(self.loader))
        criterion = nn.CrossEntropyLoss()
        start = time.perf_counter()
        module.train()
        for inputs, labels in self.loader:
            targets = nn.functional.one_hot(labels, len(self.spec.classes)).float()
            inputs, targets = plain_mixup(inputs, targets, config.augmentation.mixup)
            optimizer.zero_grad()
            loss = criterion(module(inputs), targets)
            loss.backward()
            optimizer.step()
            scheduler.step()
        module.eval()
        with torch.no_grad():
            for inputs, labels in self.val:
                criterion(module(inputs), labels)
        return time.perf_counter() - start


class PlainFaces(Dataset[tuple[Tensor, int]]):
    """Images that are changed one by one; `config` None leaves them as they are."""

    def __init__(self, data: FaceDataset, input: InputSpec, config: AugmentConfig | None) -> None:
        self.images, self.labels = data.images.numpy(), data.labels.tolist()
        self.mean, self.std = (
            torch.tensor(input.mean).view(-1, 1, 1),
            torch.tensor(input.std).view(-1, 1, 1),
        )
        self.config = config

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index, 0])
        if self.config:
            image = plain_changes(image, self.config)
        tensor = torch.from_numpy(np.array(image, np.float32) / 255)[None]
        tensor = (tensor - self.mean) / self.std
        if self.config and random.random() < self.config.erasing:
            plain_erasing(tensor, self.config)
        return tensor, self.labels[index]


def plain_changes(image: Image.Image, config: AugmentConfig) -> Image.Image:
    if random.random() < config.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    # Corners become black, which costs PIL less than repeating the border as fertool does.
    image = image.rotate(
        random.uniform(-config.rotation, config.rotation), Image.Resampling.BILINEAR
    )
    image = ImageEnhance.Brightness(image).enhance(
        random.uniform(1 - config.brightness, 1 + config.brightness)
    )
    return ImageEnhance.Contrast(image).enhance(
        random.uniform(1 - config.contrast, 1 + config.contrast)
    )


def plain_erasing(tensor: Tensor, config: AugmentConfig) -> None:
    """Cover a rectangle by the mean, in place."""
    side = tensor.shape[-1]
    area = side * side * random.uniform(*config.erasing_area)
    aspect = math.exp(random.uniform(-math.log(LARGEST_ASPECT), math.log(LARGEST_ASPECT)))
    height, width = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
    top, left = random.randint(0, side - height), random.randint(0, side - width)
    tensor[:, top : top + height, left : left + width] = tensor.mean()


def plain_mixup(inputs: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    share, order = float(np.random.beta(alpha, alpha)), torch.randperm(len(inputs))
    return share * inputs + (1 - share) * inputs[order], share * targets + (1 - share) * targets[
        order
    ]


def take_apart(
    spec: Spec, module: nn.Module, train: FaceDataset, config: TrainConfig, rounds: int
) -> dict[str, float | list[float]]:
    """Time the parts of fertool's step on one batch after the other,
    and what augmentation takes of the whole.
    """
    learn = learner(module, config, torch.channels_last)
    generator, toss = torch.Generator().manual_seed(0), torch.Generator().manual_seed(1)
    targets = train.targets()
    augmenting, rest = [], []
    for index in batches(len(train), config.batch_size, rounds):
        start = time.perf_counter()
        images, labels = train.images[index], targets[index]
        before = time.perf_counter()
        images = augment(images, config.augmentation, generator)
        images, labels = mix(images, labels, config.augmentation, generator, toss)
        after = time.perf_counter()
        learn(to_input(images, spec.input), labels)
        augmenting.append(after - before)
        rest.append(time.perf_counter() - start - augmenting[-1])
    whole = float(np.median(augmenting)) + float(np.median(rest))
    return {
        "step_s": whole,
        "augmentation_s": augmenting,
        "share": float(np.median(augmenting)) / whole,
    }


def batches(count: int, size: int, rounds: int) -> Iterator[Tensor]:
    """Yield ten shuffled batches for every round."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(10 * rounds):
        yield torch.randperm(count, generator=generator)[:size]


def compare_formats(
    spec: Spec,
    module: nn.Module,
    train: FaceDataset,
    config: TrainConfig,
    threads: list[int],
    rounds: int,
) -> list[dict[str, Any]]:
    """Time the step without augmentation in both memory formats, by number of threads,
    all interleaved.
    """
    inputs, targets = (
        to_input(train.images[: config.batch_size], spec.input),
        train.targets()[: config.batch_size],
    )
    learners = {
        name: learner(module, config, memory_format) for name, memory_format in FORMATS.items()
    }
    before = torch.get_num_threads()

    def steps(count: int, name: str) -> float:
        torch.set_num_threads(count)
        learners[name](inputs, targets)
        start = time.perf_counter()
        for _ in range(3):
            learners[name](inputs, targets)
        return (time.perf_counter() - start) / 3

    methods = {
        f"{count} {name}": lambda c=count, n=name: steps(c, n)
        for count in threads
        for name in FORMATS
    }
    seconds = take_turns(methods, rounds)
    torch.set_num_threads(before)
    rows = []
    for count in threads:
        last, first = (np.array(seconds[f"{count} {name}"])[:, None] for name in FORMATS)
        speedup, interval = paired_ratio(first, last)
        row = {
            "threads": count,
            "channels_last_s": float(np.median(last)),
            "contiguous_s": float(np.median(first)),
        }
        rows.append({**row, "channels_last_speedup": speedup, "speedup_ci95": interval})
    return rows


def learner(
    module: nn.Module, config: TrainConfig, memory_format: torch.memory_format
) -> Callable[[Tensor, Tensor], None]:
    """Return a function that takes one training step of a copy of the network."""
    module = copy.deepcopy(module).train()
    # The annotation of Module.to forgets this argument.
    module.to(memory_format=memory_format)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(
        module.parameters(), config.lr, config.momentum, nesterov=config.nesterov, fused=True
    )

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(module(inputs), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def print_network(found: dict[str, Any]) -> None:
    for row in found["loops"]["rows"]:
        faster = ""
        if "speedup" in row:
            low, high = row["speedup_ci95"]
            faster = (
                f"  {row['speedup']:.2f} [{low:.2f}, {high:.2f}] x {found['loops']['best_plain']}"
            )
        print(f"  {row['loop']:<20}{row['images_per_s']:>9.1f} images/s{faster}")
    print(
        f"  augmentation takes {found['step']['share']:.1%} of a step of"
        f" {1e3 * found['step']['step_s']:.1f} ms"
    )
    for row in found["formats"]:
        low, high = row["speedup_ci95"]
        print(
            f"  {row['threads']} threads: channels-last {1e3 * row['channels_last_s']:.1f} ms,"
            f" contiguous {1e3 * row['contiguous_s']:.1f} ms,"
            f" ratio {row['channels_last_speedup']:.2f}"
            f" [{low:.2f}, {high:.2f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
