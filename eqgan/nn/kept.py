"""What is made of tensors and kept until one of them changes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

# What was made of a layer's parameters, after the values that it was made of.
Kept = tuple[tuple[Tensor, ...], Any]


def renewed(
    kept: Kept | None, sources: tuple[Tensor, ...], make: Callable[[], tuple[Tensor | None, ...]]
) -> Kept:
    """What was kept, or what is made of the sources now if they are not what they were then."""
    if kept is not None and _same(kept[0], sources):
        return kept
    with torch.inference_mode(False):  # which turns gradients on: the graph must not be kept too
        made = tuple(None if t is None else t.detach().clone() for t in make())
        return tuple(s.detach().clone() for s in sources), made


def _same(kept: tuple[Tensor, ...], now: tuple[Tensor, ...]) -> bool:
    # By value, not by version counter: writes through .data leave the counter as it was.
    return len(kept) == len(now) and all(
        k.dtype == n.dtype and k.device == n.device and torch.equal(k, n) for k, n in zip(kept, now)
    )
