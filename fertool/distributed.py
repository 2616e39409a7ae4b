"""Data-parallel training in the processes that torchrun starts; no effect in a single process.

All ranks hold the same network and take the same steps. Each computes on its shard of every batch,
and what a batch adds up to (gradients, losses, statistics of batch normalization) is summed over
all ranks, so that a run equals the run of one process up to rounding. The backend is nccl between
GPUs and gloo between CPUs.

DistributedDataParallel does not fit. It all-reduces after every backward pass the gradients of the
parameters that were trainable when it was made: with a backbone that is frozen for some epochs its
next step raises RuntimeError ("Expected to have finished reduction in the prior iteration"). A step
here may also have several passes (accumulation, SAM), train layers of the objective beside the
network, or compute on the same few images in all ranks, and weighs shards by their images, where
DistributedDataParallel takes the mean over ranks. In the case that it covers its first sum was the
same in every printed digit, and it is no faster (two ranks with gloo, micro_expnet, torch 2.13: 254
and 257 ms a step).
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import distributed as dist

from fertool.errors import FertoolError

if TYPE_CHECKING:
    from torch.distributed.distributed_c10d import Store

_COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""After this a rank that does not answer counts as lost; one that has ended is noticed at once."""
_MAIN_PROCESS_FIRST_TIMEOUT = timedelta(days=1)
"""How long the other ranks wait while the first one of their machine decodes a data set."""


class LostProcessError(FertoolError):
    """Another process of the run has ended; it prints the reason itself where it can."""

    def __init__(
        self, message: str = "another process of this run has ended or does not answer"
    ) -> None:
        super().__init__(
            message, "run the same command again: a training resumes after its last whole epoch"
        )


def world_size() -> int:
    """Return the number of processes of the run; 1 without a launcher."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_world_size()
    return 1


def rank() -> int:
    """Return the number of this process, from 0."""
    if world_size() == 1:
        return 0
    return dist.get_rank()


def is_main_process() -> bool:
    """Whether this is rank 0, which alone writes files and prints."""
    return rank() == 0


def local_world_size() -> int:
    """Return how many processes of the run are on this machine."""
    if world_size() == 1:
        return 1
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1))


def shard_bounds(count: int) -> tuple[int, int]:
    """Return the bounds (start, stop) of this rank's shard of `count` items.

    Shards are contiguous and disjoint, cover all items and differ by one in length at most.
    """
    start = rank() * count // world_size()
    stop = (rank() + 1) * count // world_size()
    return start, stop


def connect_store() -> Store:
    """Return the key-value store that the launcher (torchrun) keeps, also after a failure.

    Raises LostProcessError when the launcher cannot be reached.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    with _errors_as_lost_process():
        store: Store
        store, _, _ = next(rendezvous("env://"))

    # torchrun keeps one store for all its --max-restarts, and with it the keys of earlier attempts.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)
    return PrefixStore(f"start {attempt}", store)


@contextmanager
def process_group(store: Store) -> Iterator[None]:
    """Join the process group of the launcher; raises LostProcessError if other ranks do not."""
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(_local_rank() % torch.cuda.device_count())

    with _errors_as_lost_process():
        dist.init_process_group(
            backend,
            store=store,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=_COLLECTIVE_TIMEOUT,
        )
    yield
    # Not after an error: the other ranks may be gone, and this one's exit has the same effect.
    dist.destroy_process_group()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Run the block first in one process of each machine; the others then find its cache."""
    if world_size() == 1:
        yield
        return

    with _errors_as_lost_process():
        # A group of its own, since the timeout belongs to the group.
        group = dist.new_group(backend="gloo", timeout=_MAIN_PROCESS_FIRST_TIMEOUT)

    is_first = _local_rank() == 0
    if is_first:
        yield
    with _errors_as_lost_process():
        dist.all_reduce(torch.zeros(1), group=group)
    if not is_first:
        yield


def all_reduce(tensor: Tensor) -> Tensor:
    """Return the sum of a small tensor over all ranks, the same bits in each of them."""
    if world_size() == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    with _errors_as_lost_process():
        # Half the delay of dist.all_reduce, which is what counts for a few numbers.
        dist.all_gather(parts, tensor)
    return torch.stack(parts).sum(0)


def all_reduce_gradients_(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its sum over all ranks."""
    if world_size() == 1:
        return

    # One message for each dtype: small networks have hundreds of gradients.
    by_dtype: dict[torch.dtype, list[Tensor]] = {}
    for parameter in parameters:
        if parameter.grad is not None:
            by_dtype.setdefault(parameter.grad.dtype, []).append(parameter.grad)

    for gradients in by_dtype.values():
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        with _errors_as_lost_process():
            dist.all_reduce(flat)

        sizes = [gradient.numel() for gradient in gradients]
        for gradient, total in zip(gradients, torch.split(flat, sizes), strict=True):
            gradient.copy_(total.view(gradient.shape))


def broadcast_(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors, of the same shapes in every rank, by those of rank 0."""
    if world_size() == 1:
        return
    for tensor in tensors:
        # The backends take contiguous memory only; weights may be in channels-last layout.
        content = tensor.detach().contiguous()
        with _errors_as_lost_process():
            dist.broadcast(content, 0)
        tensor.detach().copy_(content)


def broadcast_scalars(values: Sequence[float]) -> list[float]:
    """Return the values of rank 0, so that all ranks decide by the same numbers to the last bit."""
    tensor = torch.tensor(values, dtype=torch.float64)
    broadcast_([tensor])
    return tensor.tolist()


def same_on_all_ranks(text: str) -> bool:
    """Whether all ranks have passed the same text."""
    if world_size() == 1:
        return True

    # A digest, since all_gather needs tensors of the same length.
    digest = hashlib.sha256(text.encode()).digest()
    own = torch.tensor(list(digest), dtype=torch.int64)
    digests = [torch.empty_like(own) for _ in range(world_size())]
    with _errors_as_lost_process():
        dist.all_gather(digests, own)
    return all(torch.equal(other, own) for other in digests)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def _errors_as_lost_process() -> Iterator[None]:
    """Turn what torch.distributed raises into a LostProcessError."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError from error
