"""Spectral normalisation of group convolutions and dense layers, in three stated kinds."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

SpectralKind = Literal["filter", "bank", "operator"]
SPECTRAL_KINDS = ("filter", "bank", "operator")


class SpectralNorm(nn.Module):
    """Largest singular value of a matrix, by power iteration on a vector that is part of the state.

    One step a training forward (Miyato et al., arXiv:1802.05957, algorithm 1); none in eval, so that an
    evaluated network is a fixed function. The vectors are persistent buffers: a resumed run needs them.
    """

    u: Tensor
    v: Tensor

    def __init__(self, rows: int, columns: int, iterations: int = 1) -> None:
        super().__init__()
        self.iterations = iterations
        self.register_buffer("u", F.normalize(torch.randn(rows), dim=0))
        self.register_buffer("v", F.normalize(torch.randn(columns), dim=0))

    @torch.no_grad()
    def iterate(self, matrix: Tensor, steps: int) -> None:
        for _ in range(steps):
            self.v.copy_(F.normalize(matrix.T @ self.u, dim=0, eps=1e-12))
            self.u.copy_(F.normalize(matrix @ self.v, dim=0, eps=1e-12))

    def forward(self, matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, ""]:
        """sigma = u^T W v, differentiable in W; in full precision under autocast too."""
        with torch.autocast(matrix.device.type, enabled=False):
            if self.training:
                self.iterate(matrix, self.iterations)
            # clones: the next step of this forward pass's power iteration must not touch what backward reads
            return torch.dot(self.u.clone(), torch.mv(matrix, self.v.clone()))


class OperatorNorm(nn.Module):
    """Norm of the convolution itself on maps of one size, by power iteration with the layer and its adjoint.

    The bank's sigma neither bounds nor equals it: the operator sees overlapping windows, stride and padding.

    Args:
        in_shape: (channels, height, width) of the maps.
        stride, padding: of the convolution.
    """

    v: Tensor

    def __init__(
        self, in_shape: tuple[int, int, int], stride: int, padding: int, iterations: int = 1
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.iterations = stride, padding, iterations
        v = torch.randn(1, *in_shape)
        self.register_buffer("v", v / v.norm())

    def _apply_bank(self, bank: Tensor) -> Tensor:
        return F.conv2d(self.v.clone(), bank, None, self.stride, self.padding)

    @torch.no_grad()
    def iterate(self, bank: Tensor, steps: int) -> None:
        for _ in range(steps):
            out = self._apply_bank(bank)
            back = conv2d_input(self.v.shape, bank, out, self.stride, self.padding)
            self.v.copy_(back / back.norm().clamp_min(1e-12))

    def forward(self, bank: Float[Tensor, "out_channels in_channels k k"]) -> Float[Tensor, ""]:
        """sigma = |W v| for the unit vector v; in full precision under autocast too."""
        with torch.autocast(bank.device.type, enabled=False):
            if self.training:
                self.iterate(bank, self.iterations)
            return self._apply_bank(bank).norm()


class SpectralLinear(nn.Linear):
    """A dense layer divided by the largest singular value of its weight."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True) -> None:
        super().__init__(in_features, out_features, bias)
        self.norm = SpectralNorm(out_features, in_features)
        self.iterate_norm(15)

    def iterate_norm(self, steps: int = 1) -> None:
        """Steps of the power iteration, as training passes make them."""
        self.norm.iterate(self.weight, steps)

    def forward(self, input: Float[Tensor, "*batch features"]) -> Float[Tensor, "*batch out_features"]:
        return F.linear(input, self.weight / self.norm(self.weight), self.bias)


def iterate_norms(network: nn.Module) -> None:
    """A step of the power iteration in every normalised layer, for weights that no training pass meets."""
    for layer in network.modules():
        if (iterate := getattr(layer, "iterate_norm", None)) is not None:
            iterate()


def linear(in_features: int, out_features: int, spectral: bool, bias: bool = True) -> nn.Linear:
    """A dense layer, with spectral norm if asked for."""
    return (SpectralLinear if spectral else nn.Linear)(in_features, out_features, bias)
