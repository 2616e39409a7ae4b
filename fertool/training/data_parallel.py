"""What the training loop does in each rank of a data-parallel run (`fertool.distributed`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool import distributed
from fertool.data.augment import BatchShard
from fertool.data.dataset import FaceDataset
from fertool.errors import FertoolError, UsageError
from fertool.spec import InputSpec
from fertool.training.predict import predict_logits


def broadcast_weights(module: nn.Module) -> None:
    """Give every rank the weights of rank 0; raises FertoolError where shapes differ."""
    state = module.state_dict()
    # Checked first: a broadcast between tensors of different shapes would never return.
    layout = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in state.items()]
    require_same_run(repr(layout))
    distributed.broadcast_(state.values())


def require_same_run(description: str) -> None:
    """Raise FertoolError unless every rank describes what it is about to do by the same text."""
    if not distributed.same_on_all_ranks(description):
        raise FertoolError(
            "the processes of this run differ in their options, data, weights or resume file",
            "give every machine the same command and files, and the output on a shared disk",
        )


def require_image_per_rank(batch_size: int) -> None:
    """Raise UsageError when there are more processes than images in a batch."""
    processes = distributed.world_size()
    if batch_size < processes:
        raise UsageError(
            f"``batch_size={batch_size}``: fewer images than the {processes} processes",
            "it is the size of the batch that they share",
        )


def shard_batch(count: int, device: torch.device) -> tuple[BatchShard | None, float]:
    """Return this rank's shard of a batch of `count` images, and as how many images it counts.

    The shard begins with the left neighbor of its first image, which is there only to be mixed with
    it. None stands for the whole batch: in a single process, and at the end of an epoch where there
    are fewer images than ranks; all ranks then compute the same and share its weight.
    """
    if count < distributed.world_size():
        return None, count / distributed.world_size()
    start, stop = distributed.shard_bounds(count)
    if stop - start == count:
        return None, count

    positions = torch.arange(start - 1, stop, device=device) % count
    return BatchShard(count, positions), stop - start


def predict_logits_sharded(
    module: nn.Module, dataset: FaceDataset, input: InputSpec, device: torch.device
) -> Tensor:
    """Return the result of `predict_logits` in every rank, of which each computes a shard."""
    start, stop = distributed.shard_bounds(len(dataset))
    if stop - start == len(dataset):
        return predict_logits(module, dataset, input, device=device)

    shard = dataset.subset(torch.arange(start, stop, device=dataset.labels.device))
    logits = torch.zeros(len(dataset), len(dataset.classes))
    logits[start:stop] = predict_logits(module, shard, input, device=device)
    # All other ranks have zeros in these rows, so the sum concatenates the shards.
    return distributed.all_reduce(logits)
