"""Discriminators: a body over any plane group and a dense head, so that the score is exactly invariant."""

import itertools
from abc import ABC, abstractmethod

from jaxtyping import Float, Int64
from torch import Tensor, nn

from eqgan.groups import Z2, PlaneGroup
from eqgan.networks.bodies import ConvBody, P4CNNBody, StridedBody
from eqgan.networks.budget import Match
from eqgan.networks.conditional import Conditioning, ProjectionHead, class_head, require_labels
from eqgan.networks.parts import Body, require_widths
from eqgan.nn import SpectralKind, linear
from eqgan.nn.pooling import PoolMode


class Discriminator(nn.Module, ABC):
    """Scores images: one unbounded number each, larger for more real.

    Attributes:
        image_shape: (channels, side, side) of the images.
        group: the plane group under which the score is exactly invariant, whatever the label.
        num_classes: 0 for a discriminator that takes no labels.
    """

    def __init__(self, image_shape: tuple[int, int, int], group: PlaneGroup, num_classes: int = 0) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)
        self.group, self.num_classes = group, num_classes

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch channels height width"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch"]:
        """The score of each image in [-1, 1], given its label if the discriminator is conditional.

        Raises:
            ValueError: if a conditional discriminator gets no labels, or another gets some.
        """

    def judge(
        self, x: Float[Tensor, "batch channels height width"], labels: Int64[Tensor, "batch"] | None = None
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch classes"] | None]:
        """The scores and, of one with an auxiliary classifier, the logits of the classes."""
        return (self(x) if labels is None else self(x, labels)), None


class HeadedDiscriminator(Discriminator):
    """Features, a dense head for the score, and what a label adds to it.

    With ``"projection"`` the label chooses a direction in the features, whose product is added to the score;
    with ``"auxiliary"`` the score ignores the label, and a second head classifies the image.

    References:
        Miyato & Koyama, arXiv:1802.05637 (projection); Odena et al., arXiv:1610.09585 (auxiliary classifier).
    """

    class_head: nn.Module | None

    @abstractmethod
    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        """What the heads see."""

    @abstractmethod
    def score(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch"]:
        """The part of the score that does not depend on the label."""

    def forward(
        self, x: Float[Tensor, "batch channels height width"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch"]:
        return self.judge(x, labels)[0]

    def judge(
        self, x: Float[Tensor, "batch channels height width"], labels: Int64[Tensor, "batch"] | None = None
    ) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch classes"] | None]:
        require_labels(labels, self.num_classes, type(self).__name__)
        features = self.features(x)
        score = self.score(features)
        if self.class_head is None:
            return score, None
        if isinstance(self.class_head, ProjectionHead):
            return score + self.class_head(features, labels), None
        return score, self.class_head(features)


class BodyDiscriminator(HeadedDiscriminator):
    """A body, a nonlinearity on its features, and a dense head.

    Args:
        image_shape: (channels, side, side).
        body: from images to (batch, ``body.features``), invariant under ``body.group``.
        activation: between body and head.
        spectral: whether the head's matrix is divided by its norm.
        num_classes, conditioning: classes, and what their labels do (``HeadedDiscriminator``).
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        body: Body,
        activation: nn.Module,
        spectral: bool,
        num_classes: int = 0,
        conditioning: Conditioning = "projection",
    ) -> None:
        super().__init__(image_shape, body.group, num_classes)
        self.body, self.act = body, activation
        self.head = linear(body.features, 1, spectral)
        self.class_head = class_head(num_classes, body.features, conditioning)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        return self.act(self.body(x))

    def score(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch"]:
        return self.head(features).squeeze(1)


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
        num_classes, conditioning: classes, and what their labels do (``HeadedDiscriminator``).

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
        num_classes: int = 0,
        conditioning: Conditioning = "projection",
    ) -> None:
        body = ConvBody(image_shape, group, width, match, spectral, pool, kernel_size)
        super().__init__(image_shape, body, nn.Identity(), spectral is not None, num_classes, conditioning)


class P4CNNDiscriminator(BodyDiscriminator):
    """The seven-layer P4CNN body with any plane group as a discriminator: leaky, without batch norm.

    The fiber is pooled and the head gives one unbounded score: a log-softmax over one logit would be the
    constant 0 and an unpooled fiber would not be invariant.

    Args:
        image_shape: (channels, side, side), even sides from 22.
        group: plane group of the square lattice.
        width: Z2-equivalent width of every layer.
        num_classes, conditioning: classes, and what their labels do (``HeadedDiscriminator``).

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
        num_classes: int = 0,
        conditioning: Conditioning = "projection",
    ) -> None:
        body = P4CNNBody(
            image_shape, group, width, match, 2 * width, spectral, batch_norm=False, pool=pool, slope=0.2
        )
        super().__init__(
            image_shape, body, nn.LeakyReLU(0.2), spectral is not None, num_classes, conditioning
        )


class StridedDiscriminator(BodyDiscriminator):
    """Strided convolutions and a full-size top layer over any plane group: DCGAN's discriminator, invariant.

    Args:
        image_shape: (channels, side, side).
        group: plane group of the square lattice.
        width: Z2-equivalent width of the first layer.
        num_classes, conditioning: classes, and what their labels do (``HeadedDiscriminator``).

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
        num_classes: int = 0,
        conditioning: Conditioning = "projection",
    ) -> None:
        body = StridedBody(image_shape, group, width, match, spectral, pool)
        super().__init__(
            image_shape, body, nn.LeakyReLU(0.2), spectral is not None, num_classes, conditioning
        )


class MLPDiscriminator(HeadedDiscriminator):
    """Dense layers with LeakyReLU 0.2 and dropout 0.3, blind to every symmetry; for reference.

    Args:
        image_shape: (channels, height, width).
        hidden: widths of the hidden layers.
        num_classes, conditioning: classes, and what their labels do (``HeadedDiscriminator``).

    References:
        The vanilla GAN of Rath, 2020: 784 -> 1024 -> 512 -> 256 -> 1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        hidden: tuple[int, ...] = (1024, 512, 256),
        dropout: float = 0.3,
        spectral: bool = False,
        num_classes: int = 0,
        conditioning: Conditioning = "projection",
    ) -> None:
        super().__init__(image_shape, Z2, num_classes)
        require_widths(*hidden)
        sizes = [image_shape[0] * image_shape[1] * image_shape[2], *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            layers += [linear(before, after, spectral), nn.LeakyReLU(0.2), nn.Dropout(dropout)]
        self.layers = nn.Sequential(*layers, linear(sizes[-1], 1, spectral))
        self.class_head = class_head(num_classes, sizes[-1], conditioning)

    def features(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch features"]:
        return self.layers[:-1](x.flatten(1))

    def score(self, features: Float[Tensor, "batch features"]) -> Float[Tensor, "batch"]:
        return self.layers[-1](features).squeeze(1)
