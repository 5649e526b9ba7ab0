"""The maximum over a dimension, with a backward pass that costs about what the forward pass does."""

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from eqgan.nn.eager import is_batched, records_gradient


def maximum(x: Tensor, dim: int) -> Tensor:
    """``x.amax(dim)``, and the same gradients: where several values are the largest they share alike.

    On a CPU torch's own derivative of ``amax`` goes through booleans, whose conversion and strided sums take
    several times as long as everything else in it, and more when maps are channels_last. Where a gradient is
    wanted these maps become contiguous first; a copy is little beside that.

    Args:
        x: any shape, with ``dim`` short, as a fiber is: what shares is counted in the type of the maps.
        dim: not negative.
    """
    if x.device.type == "cpu" and records_gradient(x):
        return _Maximum.apply(x.contiguous(), dim)
    return x.amax(dim)


class _Maximum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        largest = x.amax(dim)
        ctx.save_for_backward(x, largest)
        ctx.dim = dim
        return largest

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        x, largest = (saved.detach() for saved in ctx.saved_tensors)
        there = torch.eq(x, largest.unsqueeze(ctx.dim), out=torch.empty_like(x))  # 1 or 0, never a boolean
        share = (gradients[0] / reduce(torch.add, there.unbind(ctx.dim))).unsqueeze(ctx.dim)
        apart = torch.is_grad_enabled() or is_batched(share)
        return (there * share if apart else there.mul_(share)), None
