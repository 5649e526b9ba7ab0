"""Discriminators: a body over any plane group and a dense head, so that the score is exactly invariant."""

import itertools
from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import Z2, PlaneGroup
from eqgan.networks.bodies import ConvBody, P4CNNBody, StridedBody
from eqgan.networks.budget import Match
from eqgan.nn import SpectralKind, linear
from eqgan.nn.pooling import PoolMode


class Discriminator(nn.Module, ABC):
    """Scores images: one unbounded number each, larger for more real.

    Attributes:
        image_shape: (channels, side, side) of the images.
        group: the plane group under which the score is exactly invariant.
    """

    def __init__(self, image_shape: tuple[int, int, int], group: PlaneGroup) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.group = group

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch"]:
        """The score of each image in [-1, 1]."""


class BodyDiscriminator(Discriminator):
    """A body, a nonlinearity on its features, and a dense head.

    Args:
        image_shape: (channels, side, side).
        group: under which the body's features are invariant.
        body: from images to (batch, ``body.features``).
        activation: between body and head.
        spectral: whether the head's matrix is divided by its norm.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        body: nn.Module,
        activation: nn.Module,
        spectral: bool,
    ) -> None:
        super().__init__(image_shape, group)
        self.body, self.act = body, activation
        self.head = linear(body.features, 1, spectral)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch"]:
        return self.head(self.act(self.body(x))).squeeze(1)


class ConvDiscriminator(BodyDiscriminator):
    """Three convolution blocks, pool over the fiber, mean over space, dense head.

    Given z2 it is the plain PyTorch network of the same layers.

    Args:
        image_shape: (channels, side, side).
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first block (128 in the paper, sized for a GPU).
        match: what stays equal between groups.
        spectral: kind of spectral norm of the convolutions; the head's is that of its matrix.
        pool: over the fiber.

    References:
        Dey et al., arXiv:2005.01683.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 32,
        match: Match = "parameters",
        spectral: SpectralKind | None = "bank",
        pool: PoolMode = "max",
        kernel_size: int = 3,
    ) -> None:
        body = ConvBody(image_shape, group, width, match, spectral, pool, kernel_size)
        super().__init__(image_shape, group, body, nn.Identity(), spectral is not None)


class P4CNNDiscriminator(BodyDiscriminator):
    """The seven-layer P4CNN body with any plane group as a discriminator: leaky, without batch norm.

    The fiber is pooled and the head gives one unbounded score: a log-softmax over one logit would be the
    constant 0 and an unpooled fiber would not be invariant.

    Args:
        image_shape: (channels, side, side), even sides from 22.
        group: plane group of the square lattice.
        width: Z2-equivalent width of every layer.

    References:
        Cohen & Welling, arXiv:1602.07576, section 8.1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 32,
        match: Match = "parameters",
        spectral: SpectralKind | None = "bank",
        pool: PoolMode = "max",
    ) -> None:
        body = P4CNNBody(
            image_shape, group, width, match, 2 * width, spectral, batch_norm=False, pool=pool, slope=0.2
        )
        super().__init__(image_shape, group, body, nn.LeakyReLU(0.2), spectral is not None)


class StridedDiscriminator(BodyDiscriminator):
    """Strided convolutions and a full-size top layer over any plane group: DCGAN's discriminator, invariant.

    Args:
        image_shape: (channels, side, side).
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first layer.

    References:
        Radford et al., arXiv:1511.06434.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        group: PlaneGroup,
        width: int = 32,
        match: Match = "parameters",
        spectral: SpectralKind | None = None,
        pool: PoolMode = "max",
    ) -> None:
        body = StridedBody(image_shape, group, width, match, spectral, pool)
        super().__init__(image_shape, group, body, nn.LeakyReLU(0.2), spectral is not None)


class MLPDiscriminator(Discriminator):
    """Dense layers with LeakyReLU 0.2 and dropout 0.3, blind to every symmetry; for reference.

    Args:
        image_shape: (channels, height, width).
        hidden: widths of the hidden layers.

    References:
        The vanilla GAN of Rath, 2020: 784 -> 1024 -> 512 -> 256 -> 1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden: tuple[int, ...] = (1024, 512, 256),
        dropout: float = 0.3,
        spectral: bool = False,
    ) -> None:
        super().__init__(image_shape, Z2)
        sizes = [image_shape[0] * image_shape[1] * image_shape[2], *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [linear(before, after, spectral), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, linear(sizes[-1], 1, spectral))

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch"]:
        return self.layers(x.flatten(1)).squeeze(1)
