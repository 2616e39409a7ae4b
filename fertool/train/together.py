"""What the loop does so that several processes train one network (`fertool.distributed`)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fertool import distributed
from fertool.data.augment import BatchShard
from fertool.data.dataset import FaceDataset
from fertool.errors import FertoolError, UsageError
from fertool.spec import InputSpec
from fertool.train.predict import predict_logits


def begin_alike(module: nn.Module) -> None:
    """Give every process the first one's weights; raises FertoolError when the networks differ in their shapes."""
    state = module.state_dict()
    require_same(
        repr([(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in state.items()])
    )
    distributed.take_from_first_(state.values())


def require_same(description: str) -> None:
    """Raise FertoolError unless every process describes what it is about to do by the same text."""
    if not distributed.same_everywhere(description):
        raise FertoolError(
            "the processes of this run differ in their options, data, weights or resume file",
            "give every machine the same command and files, and -o on a disk that they share",
        )


def require_images_for_all(batch_size: int) -> None:
    """Raise UsageError when there are more processes than images in a batch."""
    if batch_size < distributed.size():
        raise UsageError(
            f"--batch-size {batch_size}: less than an image for each of {distributed.size()} processes",
            "it is the size of the batch that they share",
        )


def own_part(count: int, device: torch.device) -> tuple[BatchShard | None, float]:
    """Return this process's part of a batch of `count` images, and as how many images it counts.

    The part begins with the left neighbour of its first image, which is there only to be mixed with it. None is the
    whole batch: in a single process, and at the end of an epoch where there are fewer images than processes; all of
    them then compute the same and share its weight.
    """
    if count < distributed.size():
        return None, count / distributed.size()
    first, last = distributed.part_of(count)
    if last - first == count:
        return None, count
    return BatchShard(count, torch.arange(first - 1, last, device=device) % count), last - first


def predict_shared(
    module: nn.Module, dataset: FaceDataset, input: InputSpec, device: torch.device
) -> Tensor:
    """Return what `predict_logits` returns, in every process; each computes a part of it."""
    first, last = distributed.part_of(len(dataset))
    if last - first == len(dataset):
        return predict_logits(module, dataset, input, device=device)
    own = dataset.subset(torch.arange(first, last, device=dataset.labels.device))
    whole = torch.zeros(len(dataset), len(dataset.classes))
    whole[first:last] = predict_logits(module, own, input, device=device)
    return distributed.summed(whole)
