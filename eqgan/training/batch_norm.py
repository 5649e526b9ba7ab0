"""Batch norm over the whole batch where several processes share it."""

from functools import cache

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm

from eqgan.training.ranks import world_size


class _Sum(Function):
    """The sum over the processes; its gradient is that of all of them."""

    @staticmethod
    def forward(_, value: Tensor) -> Tensor:
        total = value.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(_, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


class _WholeBatch(_BatchNorm):
    """Normalises by mean and variance of the batches of all processes together, and keeps those.

    Differentiable as often as one likes, on any device (``torch.nn.SyncBatchNorm``: once, on a GPU): a
    gradient penalty goes through the statistics of the other processes too.
    """

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(input)
        over = [0, *range(2, input.dim())]
        x = input.float() if input.dtype in (torch.float16, torch.bfloat16) else input
        shape = [1, -1, *[1] * (input.dim() - 2)]
        mean = _Sum.apply(x.mean(over)) / world_size()
        centred = x - mean.view(shape)
        variance = _Sum.apply(centred.square().mean(over)) / world_size()
        self._keep(mean, variance, world_size() * x.numel() // x.shape[1])
        normal = centred * torch.rsqrt(variance + self.eps).view(shape)
        if self.affine:
            normal = normal * self.weight.view(shape) + self.bias.view(shape)
        return normal.to(input.dtype)

    @torch.no_grad()
    def _keep(self, mean: Tensor, variance: Tensor, count: int) -> None:
        if not self.track_running_stats:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), share)
        self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), share)


@cache
def _shared(kind: type[_BatchNorm]) -> type[_BatchNorm]:
    # what the class itself does before it normalises (fields of a group) stays: _WholeBatch comes after it
    return type(f"WholeBatch{kind.__name__}", (kind, _WholeBatch), {})


def share_batch_norm(module: nn.Module) -> None:
    """Lets every batch norm of a module see the batches of all processes; weights and names stay."""
    if world_size() == 1:
        return
    for part in module.modules():
        if isinstance(part, _BatchNorm) and not isinstance(part, _WholeBatch):
            part.__class__ = _shared(type(part))
