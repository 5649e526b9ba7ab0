"""Batch normalisation whose statistics and affine are shared over the fiber."""

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import FieldType
from eqgan.nn.geometry import check_channels
from eqgan.nn.spectral import linear


class FieldBatchNorm2d(nn.BatchNorm2d):
    """Batch norm with one mean, variance, scale and shift a *field*: the values of a fiber share them.

    Args:
        in_type: type of the maps.
        momentum: weight of the new batch, PyTorch's convention (Keras's 0.1 is 0.9 here).

    Attributes:
        frozen: whether it stays in eval whatever ``train()`` asks for (``freeze``).
    """

    frozen: bool = False

    def __init__(
        self, in_type: FieldType, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True
    ) -> None:
        super().__init__(in_type.multiplicity, eps, momentum, affine)
        self.in_type = self.out_type = in_type

    def forward(
        self, input: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        check_channels(input.shape[1], self.in_type, type(self).__name__)
        # a fiber stacked along the height is one tall map of its field
        batch, _, height, width = input.shape
        tall = input.reshape(batch, self.in_type.multiplicity, self.in_type.dim * height, width)
        return super().forward(tall).reshape(input.shape)

    def freeze(self, frozen: bool = True) -> "FieldBatchNorm2d":
        """Keeps scale, shift and running statistics as they are, or lets them learn again."""
        self.frozen = frozen
        self.requires_grad_(not frozen)
        return self.train(self.training)

    def train(self, mode: bool = True) -> "FieldBatchNorm2d":
        return super().train(mode and not self.frozen)

    def extra_repr(self) -> str:
        return f"{self.in_type}, eps={self.eps}, momentum={self.momentum}, affine={self.affine}"


class ConditionalFieldBatchNorm2d(nn.Module):
    """Field batch norm whose scale and shift come from a condition: (1 + gamma(c)) x + beta(c), one a field.

    Args:
        in_type: type of the maps.
        condition: length of the condition vector.
        spectral: divide the two dense layers by their norm.

    References:
        Dey et al., arXiv:2005.01683, section 3.2.
    """

    def __init__(
        self, in_type: FieldType, condition: int, spectral: bool = False, momentum: float = 0.1
    ) -> None:
        super().__init__()
        self.in_type = self.out_type = in_type
        self.norm = FieldBatchNorm2d(in_type, momentum=momentum, affine=False)
        self.gamma = linear(condition, in_type.multiplicity, spectral)
        self.beta = linear(condition, in_type.multiplicity, spectral)

    def forward(
        self, x: Float[Tensor, "batch channels height width"], condition: Float[Tensor, "batch condition"]
    ) -> Float[Tensor, "batch channels height width"]:
        repeats = self.in_type.dim
        gamma = self.gamma(condition).repeat_interleave(repeats, 1)[:, :, None, None]
        beta = self.beta(condition).repeat_interleave(repeats, 1)[:, :, None, None]
        return (1 + gamma) * self.norm(x) + beta
