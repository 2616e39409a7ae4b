"""Several processes at one training, as torchrun starts them; in a single process nothing here has an effect.

All processes hold the same network and take the same steps. Each computes on its part of every batch, and what a batch
adds up to (gradients, losses, statistics of batch normalisation) is summed over all, so that a run is the run of one
process up to rounding. PyTorch's own communication does it: nccl between GPUs, gloo between CPUs. Its
DistributedDataParallel does not fit: it sums after every backward pass the gradients of parameters fixed at its start,
while a step here may have many passes (accumulation, SAM), freeze parameters or train an objective's own.
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

_LONGEST_SILENCE = timedelta(minutes=30)
"""After this a process that does not answer counts as lost; one that has ended is noticed at once."""
_LONGEST_READING = timedelta(days=1)
"""How long the others wait while the first process decodes a data set."""


class LostProcessError(FertoolError):
    """Another process of the run has ended; if it could, it has said why."""

    def __init__(
        self, message: str = "another process of this run has ended or does not answer"
    ) -> None:
        super().__init__(
            message, "run the same command again: a training resumes after its last whole epoch"
        )


def size() -> int:
    """Return how many processes share the work."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the number of this process, from 0."""
    return dist.get_rank() if size() > 1 else 0


def leads() -> bool:
    """Whether this is the process that writes files."""
    return rank() == 0


def local_size() -> int:
    """Return how many of the processes run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", 1)) if size() > 1 else 1


def part_of(count: int) -> tuple[int, int]:
    """Return (first, past the last) of the positions among `count` that this process takes.

    Each position belongs to one process; the parts follow each other and differ by one in length at most.
    """
    return rank() * count // size(), (rank() + 1) * count // size()


def meet() -> Store:
    """Return what the processes of a launcher (torchrun) can leave notes in for each other, also after a failure.

    Raises LostProcessError when it is not to be reached.
    """
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    with _exchange():
        found: tuple[Store, int, int] = next(rendezvous("env://"))
    # torchrun keeps one store for all its --max-restarts, and with it what earlier processes have left.
    return PrefixStore(f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", found[0])


@contextmanager
def joined(store: Store) -> Iterator[None]:
    """Be one of the launcher's processes; raises LostProcessError if the others do not come."""
    gpu = torch.cuda.is_available() and dist.is_nccl_available()
    if gpu:
        torch.cuda.set_device(_local_rank() % torch.cuda.device_count())
    with _exchange():
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if gpu else "gloo",
            store=store,
            rank=int(os.environ["RANK"]),
            world_size=int(os.environ["WORLD_SIZE"]),
            timeout=_LONGEST_SILENCE,
        )
    yield
    # Not after an error: the others may be gone, and the end of this process says the same.
    dist.destroy_process_group()


@contextmanager
def first_alone() -> Iterator[None]:
    """Let the first process of each machine do this before the others, which find in the cache what it made."""
    if size() == 1:
        yield
        return
    first = _local_rank() == 0
    with _exchange():
        # A group of its own, because of its patience.
        everyone = dist.new_group(backend="gloo", timeout=_LONGEST_READING)
    if first:
        yield
    with _exchange():
        dist.all_reduce(torch.zeros(1), group=everyone)
    if not first:
        yield


def summed(tensor: Tensor) -> Tensor:
    """Return the sum of a small tensor over all processes: the same bits in each of them."""
    if size() == 1:
        return tensor
    tensor = tensor.contiguous()
    parts = [torch.empty_like(tensor) for _ in range(size())]
    with _exchange():
        # Half the delay of all_reduce, which is all that counts for a few numbers.
        dist.all_gather(parts, tensor)
    return torch.stack(parts).sum(0)


def sum_gradients_(parameters: Iterable[Tensor]) -> None:
    """Replace each gradient by its sum over all processes."""
    if size() == 1:
        return
    gradients = [p.grad for p in parameters if p.grad is not None]
    for dtype in {gradient.dtype: None for gradient in gradients}:
        alike = [gradient for gradient in gradients if gradient.dtype == dtype]
        flat = torch.cat([gradient.reshape(-1) for gradient in alike])
        with _exchange():
            dist.all_reduce(flat)
        for gradient, part in zip(
            alike, torch.split(flat, [gradient.numel() for gradient in alike]), strict=True
        ):
            gradient.copy_(part.view(gradient.shape))


def take_from_first_(tensors: Iterable[Tensor]) -> None:
    """Overwrite tensors, of the same shapes everywhere, by those of the first process."""
    if size() == 1:
        return
    for tensor in tensors:
        content = tensor.detach().contiguous()
        with _exchange():
            dist.broadcast(content, 0)
        tensor.detach().copy_(content)


def as_the_first_says(numbers: Sequence[float]) -> list[float]:
    """Return the first process's numbers: what all decide by must be the same to the last bit."""
    told = torch.tensor(numbers, dtype=torch.float64)
    take_from_first_([told])
    return told.tolist()


def same_everywhere(text: str) -> bool:
    """Whether all processes have given the same text."""
    if size() == 1:
        return True
    mine = torch.tensor(list(hashlib.sha256(text.encode()).digest()), dtype=torch.int64)
    parts = [torch.empty_like(mine) for _ in range(size())]
    with _exchange():
        dist.all_gather(parts, mine)
    return all(torch.equal(part, mine) for part in parts)


def _local_rank() -> int:
    return int(os.environ.get("LOCAL_RANK", 0))


@contextmanager
def _exchange() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError from error
