"""The one training loop: for teachers, distillation and fine-tuning after surgery or quantisation."""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fertool import distributed
from fertool.artifact.store import pack
from fertool.config.training import TrainConfig
from fertool.data.augment import AugmentParams, apply_augmentation, draw_augment_params, mix
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.device import place, resolve_device
from fertool.errors import FertoolError
from fertool.header_json import canonical_json, digest_text
from fertool.losses import cross_entropy
from fertool.metrics import Evaluation, evaluate_logits
from fertool.precision import grad_scaler, resolve_precision
from fertool.spec import InputSpec
from fertool.train.allocator import keep_freed_memory
from fertool.train.data_parallel import (
    broadcast_weights,
    predict_logits_sharded,
    require_image_per_rank,
    require_same_run,
    shard_batch,
)
from fertool.train.depthwise import direct_depthwise
from fertool.train.freezing import HeadFirst
from fertool.train.objective import AdaptedObjective, EpochPlanner, Objective, Supervised
from fertool.train.optim import WeightAverage, lr_at, make_optimizer
from fertool.train.resizing import side_at
from fertool.train.resume import EpochRecord, Progress, load_progress, save_progress
from fertool.train.step import Batch, Stepper


@dataclass(frozen=True)
class FitResult:
    """What the run went through, and how the epoch that it kept (numbered from 1) does on the validation images.

    `logits` float32 [N, K] are its answers to them.
    """

    history: tuple[EpochRecord, ...]
    kept_epoch: int
    evaluation: Evaluation
    logits: Tensor


@dataclass(frozen=True)
class _Job:
    """What stays the same from epoch to epoch; the data lie on the device.

    `planned` are the changes of the images in one epoch, where the objective decides about them.
    """

    train: FaceDataset
    targets: Tensor
    val: FaceDataset
    input: InputSpec
    config: TrainConfig
    stepper: Stepper
    head_first: HeadFirst
    on_batch: Callable[[int, int], None] | None
    planned: AugmentParams | None = None

    def for_epoch(self, epoch: int) -> _Job:
        """Return the job with what the objective plans for an epoch."""
        objective = self.stepper.objective
        if not isinstance(objective, EpochPlanner):
            return self
        targets, planned = objective.plan_epoch(epoch, self.targets)
        return replace(self, targets=targets, planned=planned)

    @property
    def device(self) -> torch.device:
        """Where all of it happens."""
        return self.stepper.device

    @property
    def images(self) -> int:
        """Images that an epoch trains on; a last batch of one image is left out, since its variance is nothing."""
        return len(self.train) - (len(self.train) % self.config.batch_size == 1)

    @property
    def images_per_step(self) -> int:
        """All the batches whose gradients one step adds up."""
        return self.config.batch_size * self.config.accumulate

    @property
    def steps(self) -> int:
        """Steps in an epoch; the last one may see fewer images."""
        return math.ceil(self.images / self.images_per_step)


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

    The best epoch has the highest accuracy, then the lowest loss; `config.keep` may ask for the last one. With `resume`
    the state is kept in that file after each epoch, and a run that finds it goes on from there to the same bytes (on
    the CPU); the caller removes it once the result is safe. Raises FertoolError when a split is too small, when the
    loss is no longer finite, or when the file belongs to another run; UsageError for an unknown device.
    """
    _require_images(train, val)
    require_image_per_rank(config.batch_size)
    device = resolve_device(device)
    keep_freed_memory()
    objective = objective or Supervised()
    broadcast_weights(module)
    described = resume or distributed.world_size() > 1
    fingerprint = _fingerprint(module, train, val, input, config, objective) if described else ""
    home = next((p.device for p in module.parameters()), torch.device("cpu"))
    place(module, device)
    dtype = resolve_precision(config.precision, device, module)
    average = WeightAverage(module, config.ema) if config.ema else None
    adapters = objective.adapters if isinstance(objective, AdaptedObjective) else None
    learners = module if adapters is None else nn.ModuleList([module, place(adapters, device)])
    optimizer, scaler = make_optimizer(learners, config), grad_scaler(dtype, device)
    progress = Progress(module, average, optimizer, scaler, {}, [], adapters)
    stepper = Stepper(module, learners, optimizer, scaler, objective, config, device, dtype)
    here, head_first = train.to(device), HeadFirst(module, config.freeze_epochs)
    job = _Job(here, here.targets(), val.to(device), input, config, stepper, head_first, on_batch)
    if resume:
        load_progress(resume, fingerprint, progress)
    require_same_run(f"{fingerprint} from epoch {len(progress.history) + 1}")
    while not _finished(progress.history, config):
        with direct_depthwise(module, device):
            record = _run_epoch(job, progress)
        progress.history.append(record)
        if config.keep == "last" or _best(progress.history) is record:
            progress.best = {
                name: tensor.clone() for name, tensor in progress.judged.state_dict().items()
            }
        if resume and distributed.is_main_process():
            save_progress(resume, fingerprint, progress)
        if on_epoch:
            on_epoch(record)
    head_first.release()
    module.load_state_dict(progress.best)
    logits = predict_logits_sharded(module, job.val, input, device)
    place(module, home, torch.contiguous_format).eval()
    evaluation = evaluate_logits(logits, val.labels.cpu(), val.classes)
    kept = progress.history[-1] if config.keep == "last" else _best(progress.history)
    return FitResult(tuple(progress.history), kept.epoch, evaluation, logits)


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
    # Patience counts from the first epoch that trains everything.
    waited = len(history) - max(_best(history).epoch, config.freeze_epochs) if history else 0
    return config.keep == "best" and bool(config.patience) and waited >= config.patience


def _best(history: list[EpochRecord]) -> EpochRecord:
    return max(history, key=lambda record: (record.val_accuracy, -record.val_loss))


def _run_epoch(job: _Job, progress: Progress) -> EpochRecord:
    start, epoch = time.perf_counter(), len(progress.history) + 1
    train_loss = _train_epoch(job, progress, epoch)
    logits = predict_logits_sharded(progress.judged, job.val, job.input, job.device)
    val_loss = float(cross_entropy(logits, job.val.targets().cpu()))
    accuracy = float((logits.argmax(1) == job.val.labels.cpu()).double().mean())
    train_loss, val_loss, accuracy, seconds = distributed.broadcast_scalars(
        (train_loss, val_loss, accuracy, time.perf_counter() - start)
    )
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
        val_accuracy=accuracy,
        seconds=seconds,
    )


def _train_epoch(job: _Job, progress: Progress, epoch: int) -> float:
    """Train on every image once; returns the mean loss. Nothing waits for the device before the end."""
    seed = job.config.seed
    shuffle = torch.Generator().manual_seed(_derived_seed(seed, epoch, "shuffle"))
    changes = torch.Generator(job.device).manual_seed(_derived_seed(seed, epoch, "augment"))
    order = torch.randperm(len(job.train), generator=shuffle).to(job.device)[: job.images]
    val_losses = [record.val_loss for record in progress.history]
    side = side_at(job.config, epoch, job.input.size)
    # A tensor kept from each step would lie between the activations, and the memory around it be lost to the next.
    losses, sizes = torch.zeros(job.steps, device=job.device), []
    job = job.for_epoch(epoch)
    progress.module.train()
    job.head_first.start_epoch(epoch)
    with torch.random.fork_rng(devices=[job.device] if job.device.type == "cuda" else []):
        # Dropout knows only the global generator; the images of other processes need numbers of their own.
        torch.manual_seed(
            _derived_seed(
                seed,
                epoch,
                "dropout" + f" {distributed.rank()}" * (not distributed.is_main_process()),
            )
        )
        for step, index in enumerate(torch.split(order, job.images_per_step)):
            done = (epoch - 1) * job.steps + step
            for group in progress.optimizer.param_groups:
                group["lr"] = lr_at(job.config, done, job.steps, val_losses)
            losses[step] = job.stepper.step(_batches(job, index, side, changes, shuffle))
            sizes.append(len(index))
            if progress.average:
                progress.average.update(done)
            if job.on_batch:
                job.on_batch(step + 1, job.steps)
    weights = torch.tensor(sizes, dtype=torch.float64)
    return float(distributed.all_reduce(losses).cpu().double() @ weights / weights.sum())


def _batches(
    job: _Job, index: Tensor, side: int, changes: torch.Generator, toss: torch.Generator
) -> Iterator[Batch]:
    """Yield the batches of one step: the images at `index`, changed as planned or else at random, of that side."""
    augmentation, planned, input = (
        job.config.augmentation,
        job.planned,
        replace(job.input, size=side),
    )
    for batch in torch.split(index, job.config.batch_size):
        drawn = (
            draw_augment_params(len(batch), augmentation, changes)
            if planned is None
            else planned[batch]
        )
        part, counted = shard_batch(len(batch), job.device)
        if part:
            batch, drawn = batch[part.positions], drawn[part.positions]
        images = apply_augmentation(job.train.images[batch], drawn, side)
        images, targets = mix(images, job.targets[batch], augmentation, changes, toss, part)
        if part:
            images, targets = images[1:], targets[1:]
        yield Batch(to_input(images, input), targets, counted / len(index), shared=part is not None)


def _derived_seed(seed: int, epoch: int, purpose: str) -> int:
    digest = hashlib.sha256(f"{seed}/{epoch}/{purpose}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def _fingerprint(
    module: nn.Module,
    train: FaceDataset,
    val: FaceDataset,
    input: InputSpec,
    config: TrainConfig,
    objective: Objective,
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
