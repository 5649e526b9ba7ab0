"""The processes that train one run together: who they are, and what they tell one another.

Each has an equal share of every batch: of W processes, number r has rows r, r + W, r + 2W, ... of the batch
that one process would have. One that trains alone is number 0 of 1, and everything here costs it nothing.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

T = TypeVar("T")


def world_size() -> int:
    """How many there are."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The number of this one."""
    return dist.get_rank() if world_size() > 1 else 0


def own_share(rows: Tensor) -> Tensor:
    """The rows of this process, of those of a whole batch."""
    return rows[rank() :: world_size()]


def gathered(rows: Tensor) -> Tensor:
    """The rows of all processes in the order of the whole batch, differentiable in those of this one.

    A loss of the gathered rows has its gradient in parts, one a process: their sum is that of one process.

    Args:
        rows: (n, ...), as many in every process.
    """
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows, memory_format=torch.contiguous_format) for _ in range(world_size())]
    dist.all_gather(parts, rows.detach().contiguous())
    parts[rank()] = rows
    return torch.stack(parts, 1).flatten(0, 1)


def mean(value: Tensor | float) -> Tensor | float:
    """The mean over the processes, without a gradient; what is no tensor is the same in all of them."""
    if world_size() == 1 or not isinstance(value, Tensor):
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / world_size()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replaces every gradient by the sum of those of all processes; the same bits in each of them."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size() == 1 or not gradients:
        return
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients])):
        gradient.copy_(part.view_as(gradient))


def everyones(value: T) -> list[T]:
    """What each process has, in their order."""
    values: list[Any] = [value]
    if world_size() > 1:
        values = [None] * world_size()
        dist.all_gather_object(values, value)
    return values


def decided(make: Callable[[], T]) -> T:
    """What the first process makes, in all of them."""
    values = [make() if rank() == 0 else None]
    if world_size() > 1:
        dist.broadcast_object_list(values)
    return values[0]


def meet() -> None:
    """Waits until all are here; on the CPU, so that no device is woken for it."""
    everyones(None)


@contextmanager
def first_alone() -> Iterator[None]:
    """The first process does what follows before the others: they find what it left in a cache."""
    if rank() > 0:
        meet()
    yield
    if rank() == 0:
        meet()


def send_weights(module: nn.Module) -> None:
    """Gives every process the weights and buffers of the first."""
    if world_size() > 1:
        for tensor in module.state_dict().values():
            dist.broadcast(tensor, 0)


@contextmanager
def own_randomness(device: torch.device, turn: int = 0) -> Iterator[None]:
    """Within, each process draws numbers of its own; afterwards all go on with the common stream as it was.

    So the state of the common one, which is all that a checkpoint keeps, is that of every process.

    Args:
        device: whose numbers are drawn besides the CPU's.
        turn: tells apart the blocks between which nothing is drawn from the common stream.
    """
    if world_size() == 1:
        yield
        return
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(int(torch.randint(1 << 60, ())) + turn * world_size() + rank())
        yield
