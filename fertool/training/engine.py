"""The training loop: for teachers, distillation, and fine-tuning after pruning or quantization."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from fertool import distributed
from fertool.config.training import TrainConfig
from fertool.data.augment import AugmentParams, apply_augmentation, draw_augment_params, mix
from fertool.data.dataset import FaceDataset
from fertool.data.pixels import to_input
from fertool.device import place, resolve_device
from fertool.errors import FertoolError
from fertool.graph.depthwise_conv import direct_weight_gradients
from fertool.losses import cross_entropy
from fertool.metrics import Evaluation, evaluate_logits
from fertool.objective import AdaptedObjective, Objective, Supervised, plan_epoch
from fertool.precision import grad_scaler, resolve_precision
from fertool.spec import InputSpec
from fertool.training.data_parallel import (
    broadcast_weights,
    predict_logits_sharded,
    require_image_per_rank,
    require_same_run,
    shard_batch,
)
from fertool.training.freeze_backbone import BackboneFreezer
from fertool.training.optimizer import WeightAverage, lr_at, make_optimizer
from fertool.training.progressive_resizing import image_size_at
from fertool.training.random_streams import derived_seed, dropout_stream, fork_rng
from fertool.training.run_fingerprint import run_fingerprint
from fertool.training.step import Batch, Stepper
from fertool.training.training_state import (
    EpochRecord,
    TrainingState,
    load_training_state,
    save_training_state,
)


@dataclass(frozen=True)
class FitResult:
    """The history of a run, and the validation of the epoch that it kept (numbered from 1).

    `logits` float32 [N, K] are those of the validation images.
    """

    history: tuple[EpochRecord, ...]
    kept_epoch: int
    evaluation: Evaluation
    logits: Tensor


@dataclass(frozen=True)
class _Run:
    """What stays the same from epoch to epoch; the data are on the device.

    `planned` is the augmentation of the images in one epoch, where the objective chooses it.
    """

    train: FaceDataset
    targets: Tensor
    val: FaceDataset
    input: InputSpec
    config: TrainConfig
    stepper: Stepper
    freezer: BackboneFreezer
    on_batch: Callable[[int, int], None] | None
    planned: AugmentParams | None = None

    def for_epoch(self, epoch: int) -> _Run:
        """Return the run with what the objective plans for an epoch."""
        targets, planned = plan_epoch(self.stepper.objective, epoch, self.targets)
        return replace(self, targets=targets, planned=planned)

    @property
    def device(self) -> torch.device:
        """The device of the computation."""
        return self.stepper.device

    @property
    def images(self) -> int:
        """Images that an epoch trains on.

        A last batch of one image is dropped, since batch norm has no variance to take from it.
        """
        images = len(self.train)
        if images % self.config.batch_size == 1:
            return images - 1
        return images

    @property
    def images_per_step(self) -> int:
        """The images of all batches whose gradients one step accumulates."""
        return self.config.batch_size * self.config.grad_accumulation

    @property
    def steps(self) -> int:
        """Steps in an epoch; the last one may have fewer images."""
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
    """Train `module` in place; it ends in eval mode with the weights of the best epoch on `val`.

    The best epoch has the highest accuracy, then the lowest loss; `config.keep` may ask for the
    last one. With `resume` the state is saved in that file after each epoch, and a run that finds
    the file continues from there to the same bytes (on the CPU); the caller removes it once the
    result is safe.

    Raises FertoolError when a split is too small, when the loss is no longer finite, or when the
    file belongs to another run; UsageError for an unknown device.
    """
    _require_images(train, val)
    require_image_per_rank(config.batch_size)
    device = resolve_device(device)
    objective = objective or Supervised()
    broadcast_weights(module)

    # Taken before anything moves or trains: it digests the initial weights.
    fingerprint = ""
    if resume or distributed.world_size() > 1:
        fingerprint = run_fingerprint(module, train, val, input, config, objective)
    original_device = _device_of(module)
    place(module, device)
    state, stepper = _set_up_training(module, config, objective, device)
    train_on_device = train.to(device)
    run = _Run(
        train=train_on_device,
        targets=train_on_device.targets(),
        val=val.to(device),
        input=input,
        config=config,
        stepper=stepper,
        freezer=BackboneFreezer(module, config.freeze_epochs),
        on_batch=on_batch,
    )
    if resume:
        load_training_state(resume, fingerprint, state)
    require_same_run(f"{fingerprint} from epoch {len(state.history) + 1}")

    _train_epochs(run, state, resume, fingerprint, on_epoch)
    run.freezer.release()
    result = _keep_best_epoch(run, state)
    # Back to PyTorch's default memory format, which callers expect.
    place(module, original_device, torch.contiguous_format).eval()
    return result


def _set_up_training(
    module: nn.Module, config: TrainConfig, objective: Objective, device: torch.device
) -> tuple[TrainingState, Stepper]:
    """Return the state before the first epoch and the stepper; `module` is on the device."""
    dtype = resolve_precision(config.precision, device, module)
    average = None
    if config.ema_decay:
        average = WeightAverage(module, config.ema_decay)

    adapters = None
    learners = module
    if isinstance(objective, AdaptedObjective):
        adapters = objective.adapters
        learners = nn.ModuleList([module, place(adapters, device)])

    optimizer = make_optimizer(learners, config)
    scaler = grad_scaler(dtype, device)
    state = TrainingState(
        module=module,
        average=average,
        optimizer=optimizer,
        scaler=scaler,
        best={},
        history=[],
        adapters=adapters,
    )
    stepper = Stepper(
        module=module,
        learners=learners,
        optimizer=optimizer,
        scaler=scaler,
        objective=objective,
        config=config,
        device=device,
        dtype=dtype,
    )
    return state, stepper


def _train_epochs(
    run: _Run,
    state: TrainingState,
    resume: Path | None,
    fingerprint: str,
    on_epoch: Callable[[EpochRecord], None] | None,
) -> None:
    """Train until the run is finished; saves the state after each epoch."""
    config = run.config
    while not _finished(state.history, config):
        with direct_weight_gradients(state.module, run.device):
            record = _run_epoch(run, state)
        state.history.append(record)

        if config.keep == "last" or _best(state.history) is record:
            tensors = state.evaluated_module.state_dict()
            # Cloned, since the next steps change these tensors in place.
            state.best = {name: tensor.clone() for name, tensor in tensors.items()}
        if resume and distributed.is_main_process():
            save_training_state(resume, fingerprint, state)
        if on_epoch:
            on_epoch(record)


def _keep_best_epoch(run: _Run, state: TrainingState) -> FitResult:
    """Give the network the weights of the epoch that is kept, and evaluate it."""
    state.module.load_state_dict(state.best)
    logits = predict_logits_sharded(state.module, run.val, run.input, run.device)
    evaluation = evaluate_logits(logits, run.val.labels.cpu(), run.val.classes)
    kept = _best(state.history)
    if run.config.keep == "last":
        kept = state.history[-1]
    return FitResult(tuple(state.history), kept.epoch, evaluation, logits)


def _require_images(train: FaceDataset, val: FaceDataset) -> None:
    # Batch norm needs two training images: one alone has no variance.
    for data, least in ((train, 2), (val, 1)):
        if len(data) < least:
            raise FertoolError(
                f"the {data.split} split has {len(data)} images, training needs {least} or more",
                "look at it with: fertool data info ``data=…``",
            )


def _device_of(module: nn.Module) -> torch.device:
    for parameter in module.parameters():
        return parameter.device
    return torch.device("cpu")


def _finished(history: list[EpochRecord], config: TrainConfig) -> bool:
    if len(history) >= config.epochs:
        return True
    if config.keep == "last" or not config.patience or not history:
        return False
    # Patience counts from the first epoch in which everything is trained.
    waited = len(history) - max(_best(history).epoch, config.freeze_epochs)
    return waited >= config.patience


def _best(history: list[EpochRecord]) -> EpochRecord:
    # Of equal epochs the first, as max returns it: its weights are those that were kept.
    return max(history, key=lambda record: (record.val_accuracy, -record.val_loss))


def _run_epoch(run: _Run, state: TrainingState) -> EpochRecord:
    """Train and validate one epoch; raises FertoolError when a loss is not finite."""
    start = time.perf_counter()
    epoch = len(state.history) + 1
    train_loss = _train_epoch(run, state, epoch)

    logits = predict_logits_sharded(state.evaluated_module, run.val, run.input, run.device)
    val_loss = float(cross_entropy(logits, run.val.targets().cpu()))
    correct = logits.argmax(1) == run.val.labels.cpu()
    accuracy = float(correct.double().mean())

    # All ranks decide by the same numbers when to stop and what to keep.
    seconds = time.perf_counter() - start
    train_loss, val_loss, accuracy, seconds = distributed.broadcast_scalars(
        [train_loss, val_loss, accuracy, seconds]
    )
    if not (math.isfinite(train_loss) and math.isfinite(val_loss)):
        raise FertoolError(
            f"epoch {epoch}: the loss is {train_loss:.4g} in training "
            f"and {val_loss:.4g} in validation",
            f"use a lower ``lr`` than {run.config.lr:g}, or ``max_grad_norm=1``",
        )
    return EpochRecord(
        epoch=epoch,
        lr=state.optimizer.param_groups[0]["lr"],
        train_loss=train_loss,
        val_loss=val_loss,
        val_accuracy=accuracy,
        seconds=seconds,
    )


def _train_epoch(run: _Run, state: TrainingState, epoch: int) -> float:
    """Train on every image once and return the mean loss; waits for the device only at the end."""
    seed = run.config.seed
    shuffle = torch.Generator().manual_seed(derived_seed(seed, epoch, "shuffle"))
    augment = torch.Generator(run.device).manual_seed(derived_seed(seed, epoch, "augment"))
    order = torch.randperm(len(run.train), generator=shuffle).to(run.device)[: run.images]
    val_losses = [record.val_loss for record in state.history]
    size = image_size_at(run.config, epoch, run.input.size)

    # One tensor for all steps: one kept from each step would lie between the activations, and the
    # memory around it would be lost to the next step.
    losses = torch.zeros(run.steps, device=run.device)
    images_of_step: list[int] = []
    run = run.for_epoch(epoch)
    state.module.train()
    run.freezer.start_epoch(epoch)
    with fork_rng(run.device):
        # Dropout uses only the global generator.
        torch.manual_seed(derived_seed(seed, epoch, dropout_stream()))
        for step, index in enumerate(torch.split(order, run.images_per_step)):
            global_step = (epoch - 1) * run.steps + step
            lr = lr_at(run.config, global_step, run.steps, val_losses)
            for group in state.optimizer.param_groups:
                group["lr"] = lr
            losses[step] = run.stepper.step(_step_batches(run, index, size, augment, shuffle))
            images_of_step.append(len(index))
            if state.average:
                state.average.update(global_step)
            if run.on_batch:
                run.on_batch(step + 1, run.steps)

    weights = torch.tensor(images_of_step, dtype=torch.float64)
    return float(distributed.all_reduce(losses).cpu().double() @ weights / weights.sum())


def _step_batches(
    run: _Run, index: Tensor, size: int, augment: torch.Generator, choice: torch.Generator
) -> Iterator[Batch]:
    """Yield the batches of one step: the images at `index`, augmented, in that size.

    Every rank draws the random numbers of the whole batch, so that a run does not depend on the
    number of ranks.
    """
    augmentation = run.config.augmentation
    input = replace(run.input, size=size)
    for positions in torch.split(index, run.config.batch_size):
        params = _augment_params(run, positions, augment)
        shard, count = shard_batch(len(positions), run.device)
        if shard:
            positions = positions[shard.positions]
            params = params[shard.positions]

        images = apply_augmentation(run.train.images[positions], params, size)
        images, targets = mix(images, run.targets[positions], augmentation, augment, choice, shard)
        if shard:
            # The first one is a neighbor that was only there to be mixed with.
            images = images[1:]
            targets = targets[1:]
        yield Batch(
            inputs=to_input(images, input),
            targets=targets,
            weight=count / len(index),
            sharded=shard is not None,
        )


def _augment_params(run: _Run, positions: Tensor, generator: torch.Generator) -> AugmentParams:
    """Return the augmentation of the images of a batch: that of the plan, or a random one.

    Degradations are random in both: a plan's teachers saw the images without them.
    """
    if run.planned is not None:
        return run.planned[positions].with_degradations(run.config.augmentation, generator)
    return draw_augment_params(len(positions), run.config.augmentation, generator)
