"""The one training loop: for teachers, distillation and fine-tuning after surgery or quantisation."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor, nn

from fertool.artifact.store import pack
from fertool.data.augment import augment, mixup
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.device import place, resolve_device
from fertool.errors import FertoolError
from fertool.losses import cross_entropy
from fertool.metrics import Evaluation, evaluate_logits
from fertool.spec import InputSpec, canonical_json, digest_text
from fertool.train.config import TrainConfig
from fertool.train.optim import WeightAverage, lr_at, make_optimizer
from fertool.train.predict import predict_logits
from fertool.train.resume import EpochRecord, Progress, load_progress, save_progress


class Objective(Protocol):
    """What a step minimises: (module, normalised inputs [N, C, S, S], target distributions [N, K]) to a scalar."""

    @property
    def fingerprint(self) -> str:
        """All that the loss depends on, as text: a killed run goes on only under the same."""

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss of a batch, a scalar that has a gradient."""


@dataclass(frozen=True)
class CrossEntropy:
    """The objective of plain training."""

    label_smoothing: float = 0.0

    @property
    def fingerprint(self) -> str:
        """Its name; the smoothing is part of the run's configuration."""
        return "cross-entropy"

    def __call__(self, module: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats."""
        return cross_entropy(module(inputs), targets, label_smoothing=self.label_smoothing)


@dataclass(frozen=True)
class FitResult:
    """What the run went through, and how the best epoch (numbered from 1) does on the validation images."""

    history: tuple[EpochRecord, ...]
    best_epoch: int
    evaluation: Evaluation


@dataclass(frozen=True)
class _Job:
    """What stays the same from epoch to epoch; the data lie on the device."""

    train: FaceDataset
    targets: Tensor
    val: FaceDataset
    input: InputSpec
    config: TrainConfig
    objective: Objective
    device: torch.device
    on_batch: Callable[[int, int], None] | None

    @property
    def steps(self) -> int:
        """Steps in an epoch; a last batch of one image is left out, since its variance is nothing."""
        full, rest = divmod(len(self.train), self.config.batch_size)
        return full + (rest > 1)


def fit(
    module: nn.Module,
    train: FaceDataset,
    val: FaceDataset,
    input: InputSpec,
    config: TrainConfig,
    *,
    objective: Objective | None = None,
    device: str | torch.device = "cpu",
    resume: Path | None = None,
    on_batch: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> FitResult:
    """Train `module` in place and leave it in eval mode with the weights of the epoch that did best on `val`.

    The best epoch has the highest accuracy, then the lowest loss. With `resume` the state is kept in that file after
    each epoch, and a run that finds it goes on from there to the same bytes (on the CPU); the caller removes it once
    the result is safe. Raises FertoolError when a split is too small, when the loss is no longer finite, or when the
    file belongs to another run; UsageError for an unknown device.
    """
    _require_images(train, val)
    device = resolve_device(device)
    objective = objective or CrossEntropy(config.label_smoothing)
    fingerprint = _fingerprint(module, train, val, input, config, objective) if resume else ""
    home = next((p.device for p in module.parameters()), torch.device("cpu"))
    # Depthwise convolutions run faster in this layout on the CPU, the others no slower.
    place(module, device, torch.channels_last)
    here = train.to(device)
    job = _Job(here, here.targets(), val.to(device), input, config, objective, device, on_batch)
    average = WeightAverage(module, config.ema) if config.ema else None
    progress = Progress(module, average, make_optimizer(module, config), {}, [])
    if resume:
        load_progress(resume, fingerprint, progress)
    while not _finished(progress.history, config):
        record = _run_epoch(job, progress)
        progress.history.append(record)
        if _best(progress.history) is record:
            progress.best = {name: tensor.clone() for name, tensor in progress.judged.state_dict().items()}
        if resume:
            save_progress(resume, fingerprint, progress)
        if on_epoch:
            on_epoch(record)
    module.load_state_dict(progress.best)
    logits = predict_logits(module, job.val, input, device=device)
    place(module, home, torch.contiguous_format).eval()
    evaluation = evaluate_logits(logits, val.labels.cpu(), val.classes)
    return FitResult(tuple(progress.history), _best(progress.history).epoch, evaluation)


def _require_images(train: FaceDataset, val: FaceDataset) -> None:
    for data, least in ((train, 2), (val, 1)):
        if len(data) < least:
            raise FertoolError(
                f"the {data.split} split has {len(data)} images, training needs {least} or more",
                "look at it with: fertool data info --data …",
            )


def _finished(history: list[EpochRecord], config: TrainConfig) -> bool:
    if len(history) >= config.epochs:
        return True
    return bool(config.patience and history) and len(history) - _best(history).epoch >= config.patience


def _best(history: list[EpochRecord]) -> EpochRecord:
    return max(history, key=lambda record: (record.val_accuracy, -record.val_loss))


def _run_epoch(job: _Job, progress: Progress) -> EpochRecord:
    start, epoch = time.perf_counter(), len(progress.history) + 1
    train_loss = _train_epoch(job, progress, epoch)
    logits = predict_logits(progress.judged, job.val, job.input, device=job.device)
    val_loss = float(cross_entropy(logits, job.val.targets().cpu()))
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise FertoolError(
            f"epoch {epoch}: the loss is {train_loss:.4g} in training and {val_loss:.4g} in validation",
            f"use a lower --lr than {job.config.lr:g}, or --clip-norm 1",
        )
    return EpochRecord(
        epoch=epoch,
        lr=progress.optimizer.param_groups[0]["lr"],
        train_loss=train_loss,
        val_loss=val_loss,
        val_accuracy=float((logits.argmax(1) == job.val.labels.cpu()).double().mean()),
        seconds=time.perf_counter() - start,
    )


def _train_epoch(job: _Job, progress: Progress, epoch: int) -> float:
    """Train on every image once; returns the mean loss. Nothing waits for the device before the end."""
    seed = job.config.seed
    shuffle = torch.Generator().manual_seed(_derived_seed(seed, epoch, "shuffle"))
    changes = torch.Generator(job.device).manual_seed(_derived_seed(seed, epoch, "augment"))
    order = torch.randperm(len(job.train), generator=shuffle).to(job.device)
    losses, sizes = [], []
    progress.module.train()
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        # Dropout knows only the global generator.
        torch.manual_seed(_derived_seed(seed, epoch, "dropout"))
        for step, index in enumerate(torch.split(order, job.config.batch_size)[: job.steps]):
            done = (epoch - 1) * job.steps + step
            for group in progress.optimizer.param_groups:
                group["lr"] = lr_at(job.config, done, job.steps)
            losses.append(_step(job, progress, index, changes))
            sizes.append(len(index))
            if progress.average:
                progress.average.update(done)
            if job.on_batch:
                job.on_batch(step + 1, job.steps)
    weights = torch.tensor(sizes, dtype=torch.float64)
    return float(torch.stack(losses).cpu().double() @ weights / weights.sum())


def _step(job: _Job, progress: Progress, index: Tensor, changes: torch.Generator) -> Tensor:
    """Take one optimiser step on the images at `index`; returns the loss, still on the device."""
    config = job.config
    images = augment(job.train.images[index], config.augmentation, changes)
    images, targets = mixup(images, job.targets[index], config.augmentation.mixup, changes)
    loss = job.objective(progress.module, to_input(images, job.input), targets)
    progress.optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    if config.clip_norm:
        nn.utils.clip_grad_norm_(progress.module.parameters(), config.clip_norm)
    progress.optimizer.step()
    return loss.detach()


def _derived_seed(seed: int, epoch: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _fingerprint(
    module: nn.Module, train: FaceDataset, val: FaceDataset, input: InputSpec, config: TrainConfig, objective: Objective
) -> str:
    """Digest everything that decides how the run ends, the initial weights included."""
    tensors = {f"module/{name}": tensor for name, tensor in module.state_dict().items()}
    tensors.update(train=train.targets(), val=val.targets())
    described = {
        "config": asdict(config),
        "input": asdict(input),
        "classes": train.classes,
        "data": [train.digest, val.digest],
        "objective": objective.fingerprint,
        "tensors": pack({}, tensors)[0]["digest"],
    }
    return digest_text(canonical_json(described))
