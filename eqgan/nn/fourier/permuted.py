"""Numbers in another order, there and back."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from eqgan.nn.eager import records_gradient


@dataclass(frozen=True, eq=False)
class Permutation:
    """``x.index_select(dim, order)`` of an order that has each number once.

    torch adds what comes back to zeros, since an order may have numbers twice; here it is put back, in a
    third of the time.

    Args:
        order: (n), the numbers from 0 to n - 1.
    """

    order: Tensor
    inverse: Tensor

    @classmethod
    def of(cls, order: Tensor) -> "Permutation":
        return cls(order, order.argsort())

    @property
    def back(self) -> "Permutation":
        return Permutation(self.inverse, self.order)

    def __call__(self, x: Tensor, dim: int) -> Tensor:
        if records_gradient(x):
            return _Permuted.apply(x, dim, self)
        return x.index_select(dim, self.order.to(x.device))


class _Permuted(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int, how: Permutation) -> Tensor:
        ctx.dim, ctx.how = dim, how
        return x.index_select(dim, how.order.to(x.device))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.how.back(gradients[0], ctx.dim), None, None
