"""Images per second of fertool's training loop against a plain PyTorch loop: same network, optimiser and maths.

    python benchmarks/training.py --arch resnet18,mobilenet_v3_small -o training.json

The plain loop is what a tutorial teaches: a DataLoader, with and without worker processes, that changes one image after
the other with PIL (flip, rotation, brightness, contrast) and torch (normalising, erasing), mixup by batch, the default
memory format. Turns of one epoch alternate; the ratio is that of the medians, with a bootstrap interval over rounds.
Then, on one batch: what augmentation takes of a step, and channels-last against contiguous by number of threads.
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
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from turns import faces, take_turns

from fertool.artifact.atomic import write_atomic
from fertool.data import FaceDataset
from fertool.data.augment import AugmentConfig, augment, mix
from fertool.data.pixels import to_input
from fertool.models import create
from fertool.runtime.benchmark import speedup_ci95
from fertool.spec import InputSpec, Spec
from fertool.train import TrainConfig, fit

LARGEST_ASPECT = 3.3
FORMATS = {"channels-last": torch.channels_last, "contiguous": torch.contiguous_format}


def main() -> None:
    options = parse_args()
    torch.set_num_threads(options.threads)
    config = TrainConfig(epochs=1, batch_size=options.batch_size, optimizer="sgd", lr=0.01, seed=options.seed)
    train, val = faces(options.images)
    report: dict[str, Any] = {
        "images": len(train),
        "batch_size": options.batch_size,
        "threads": options.threads,
        "cores": os.cpu_count(),
        "rounds": options.rounds,
        "torch": torch.__version__,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "networks": [],
    }
    for arch in options.arch.split(","):
        torch.manual_seed(options.seed)
        spec, module = create(arch, {}, InputSpec(), train.classes)
        workers = [int(count) for count in options.workers.split(",")]
        found = {
            "arch": arch,
            "loops": compare_loops(spec, module, train, val, config, workers, options.rounds),
            "step": take_apart(spec, module, train, config, options.rounds),
            "formats": compare_formats(spec, module, train, config, options.format_threads, options.rounds),
        }
        report["networks"].append(found)
        print_network(found)
        if options.output:
            write_atomic(options.output, json.dumps(report, indent=1).encode())


def parse_args() -> argparse.Namespace:
    cores = os.cpu_count() or 1
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="resnet18,mobilenet_v3_small", help="networks, separated by commas")
    parser.add_argument("--images", type=int, default=1024, help="drawn faces that a turn trains on")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=9, help="turns of each loop")
    parser.add_argument("--threads", type=int, default=cores, help="of PyTorch, in both loops")
    parser.add_argument("--workers", default=f"0,{cores}", help="worker counts of the plain loop, by commas")
    parser.add_argument("--format-threads", default=None, help="thread counts for the formats; default: 1 to all cores")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, help="JSON file for the figures")
    options = parser.parse_args()
    counts = options.format_threads.split(",") if options.format_threads else range(1, cores + 1)
    options.format_threads = [int(count) for count in counts]
    return options


def compare_loops(
    spec: Spec,
    module: nn.Module,
    train: FaceDataset,
    val: FaceDataset,
    config: TrainConfig,
    workers: list[int],
    rounds: int,
) -> dict[str, Any]:
    """Let the loops take turns of one epoch; returns their seconds and how many times faster fertool's is."""
    loops: dict[str, Callable[[], float]] = {
        "fertool": lambda: fit(copy.deepcopy(module), train, val, spec.input, config).history[0].seconds
    }
    for count in workers:
        loops[f"plain, {count} workers"] = PlainLoop(spec, module, train, val, config, count).epoch
    seconds = take_turns(loops, rounds)
    own = seconds["fertool"]
    rows = []
    for name, times in seconds.items():
        speedup, interval = speedup_ci95(np.array(times)[:, None], np.array(own)[:, None], config.seed)
        row = {"loop": name, "seconds": times, "images_per_s": len(train) / float(np.median(times))}
        rows.append(row if name == "fertool" else {**row, "fertool_speedup": speedup, "speedup_ci95": interval})
    best = min((row for row in rows[1:]), key=lambda row: row["fertool_speedup"])
    return {"rows": rows, "best_plain": best["loop"], "speedup": best["fertool_speedup"], "ci95": best["speedup_ci95"]}


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
        optimizer = torch.optim.SGD(module.parameters(), config.lr, config.momentum, nesterov=config.nesterov)
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
        self.mean, self.std = torch.tensor(input.mean).view(-1, 1, 1), torch.tensor(input.std).view(-1, 1, 1)
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
    image = image.rotate(random.uniform(-config.rotation, config.rotation), Image.Resampling.BILINEAR)
    image = ImageEnhance.Brightness(image).enhance(random.uniform(1 - config.brightness, 1 + config.brightness))
    return ImageEnhance.Contrast(image).enhance(random.uniform(1 - config.contrast, 1 + config.contrast))


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
    return share * inputs + (1 - share) * inputs[order], share * targets + (1 - share) * targets[order]


def take_apart(
    spec: Spec, module: nn.Module, train: FaceDataset, config: TrainConfig, rounds: int
) -> dict[str, float | list[float]]:
    """Time the parts of fertool's step on one batch after the other, and what augmentation takes of the whole."""
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
    return {"step_s": whole, "augmentation_s": augmenting, "share": float(np.median(augmenting)) / whole}


def batches(count: int, size: int, rounds: int) -> Iterator[Tensor]:
    """Yield ten shuffled batches for every round."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(10 * rounds):
        yield torch.randperm(count, generator=generator)[:size]


def compare_formats(
    spec: Spec, module: nn.Module, train: FaceDataset, config: TrainConfig, threads: list[int], rounds: int
) -> list[dict[str, Any]]:
    """Time the step without augmentation in both memory formats, by number of threads, all in turns."""
    inputs, targets = to_input(train.images[: config.batch_size], spec.input), train.targets()[: config.batch_size]
    learners = {name: learner(module, config, memory_format) for name, memory_format in FORMATS.items()}
    before = torch.get_num_threads()

    def steps(count: int, name: str) -> float:
        torch.set_num_threads(count)
        learners[name](inputs, targets)
        start = time.perf_counter()
        for _ in range(3):
            learners[name](inputs, targets)
        return (time.perf_counter() - start) / 3

    methods = {f"{count} {name}": lambda c=count, n=name: steps(c, n) for count in threads for name in FORMATS}
    seconds = take_turns(methods, rounds)
    torch.set_num_threads(before)
    rows = []
    for count in threads:
        last, first = (np.array(seconds[f"{count} {name}"])[:, None] for name in FORMATS)
        speedup, interval = speedup_ci95(first, last, config.seed)
        row = {"threads": count, "channels_last_s": float(np.median(last)), "contiguous_s": float(np.median(first))}
        rows.append({**row, "channels_last_speedup": speedup, "speedup_ci95": interval})
    return rows


def learner(
    module: nn.Module, config: TrainConfig, memory_format: torch.memory_format
) -> Callable[[Tensor, Tensor], None]:
    """Return a function that takes one training step of a copy of the network."""
    module = copy.deepcopy(module).to(memory_format=memory_format).train()
    optimizer = torch.optim.SGD(module.parameters(), config.lr, config.momentum, nesterov=config.nesterov, fused=True)

    def step(inputs: Tensor, targets: Tensor) -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(module(inputs), targets).backward()
        optimizer.step()

    return step


def print_network(found: dict[str, Any]) -> None:
    loops = found["loops"]
    print(f"\n{found['arch']}")
    for row in loops["rows"]:
        speed = f"{row['fertool_speedup']:>8.2f} x slower" if "fertool_speedup" in row else ""
        print(f"  {row['loop']:<20}{row['images_per_s']:>9.1f} images/s{speed}")
    low, high = loops["ci95"]
    print(f"  fertool against the best plain loop: {loops['speedup']:.2f} [{low:.2f}, {high:.2f}]")
    print(f"  augmentation takes {found['step']['share']:.1%} of a step of {1e3 * found['step']['step_s']:.1f} ms")
    for row in found["formats"]:
        low, high = row["speedup_ci95"]
        print(
            f"  {row['threads']} threads: channels-last {1e3 * row['channels_last_s']:.1f} ms,"
            f" contiguous {1e3 * row['contiguous_s']:.1f} ms, ratio {row['channels_last_speedup']:.2f}"
            f" [{low:.2f}, {high:.2f}]",
            flush=True,
        )


if __name__ == "__main__":
    main()
