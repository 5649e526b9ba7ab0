"""Generators: from a latent to an image in [-1, 1]."""

import itertools
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from eqgan.networks.conditional import require_labels
from eqgan.networks.parts import doubled_widths, halved, require_widths
from eqgan.nn import FusedSequential, PlainUpsampleConv2d


class Generator(nn.Module, ABC):
    """Draws images from latents and, if it is conditional, class labels.

    Attributes:
        image_shape: (channels, height, width) of the images.
        latent_dim: length of a latent, which is standard normal.
        num_classes: 0 for a generator that takes no labels.
        condition_dim: length of what the images are made from: the latent and, beside it, the embedding of
            the class.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int,
        num_classes: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"expected a latent of at least 1 dimension, got {latent_dim}")
        if num_classes < 0 or embedding < 1:
            raise ValueError(
                f"expected at least 0 classes and an embedding of at least 1 dimension, "
                f"got num_classes={num_classes}, embedding={embedding}"
            )
        self.image_shape = tuple(image_shape)
        self.latent_dim, self.num_classes = latent_dim, num_classes
        self.class_embedding = nn.Embedding(num_classes, embedding) if num_classes else None
        self.condition_dim = latent_dim + (embedding if num_classes else 0)

    @abstractmethod
    def forward(
        self, z: Float[Tensor, "batch latent"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """Images in [-1, 1].

        Raises:
            ValueError: if a conditional generator gets no labels, or another gets some.
        """

    def condition(
        self, z: Float[Tensor, "batch latent"], labels: Int64[Tensor, "batch"] | None
    ) -> Float[Tensor, "batch condition"]:
        """The latent, with the embedding of the class beside it if there is one."""
        require_labels(labels, self.num_classes, type(self).__name__)
        return z if labels is None else torch.cat([z, self.class_embedding(labels)], 1)

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n latent"]:
        """Standard normal latents on the device of the weights; the same numbers on any device if a CPU
        generator is given."""
        weight = next(self.parameters())
        if generator is None:
            return torch.randn(count, self.latent_dim, device=weight.device, dtype=weight.dtype)
        z = torch.randn(count, self.latent_dim, generator=generator, device=generator.device)
        return z.to(weight)


class VanillaGenerator(Generator):
    """Dense layers with LeakyReLU 0.2 and a tanh.

    Args:
        image_shape: (channels, height, width).
        hidden: widths of the hidden layers.
        batch_norm: batch norm after each hidden layer; the tutorial has none.
        num_classes, embedding: classes, and the length of their embedding beside the latent.

    References:
        The vanilla GAN of Rath, 2020: 128 -> 256 -> 512 -> 1024 -> 784, 1,493,520 parameters.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 128,
        hidden: tuple[int, ...] = (256, 512, 1024),
        batch_norm: bool = False,
        num_classes: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, embedding)
        require_widths(*hidden)
        sizes = [self.condition_dim, *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            norm = [nn.BatchNorm1d(after)] if batch_norm else []
            layers += [nn.Linear(before, after), *norm, nn.LeakyReLU(0.2)]
        channels, height, width = image_shape
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], channels * height * width), nn.Tanh())

    def forward(
        self, z: Float[Tensor, "batch latent"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        return self.layers(self.condition(z, labels)).view(-1, *self.image_shape)


class ConvGenerator(Generator):
    """A dense projection to a small map, then [nearest x2, 3x3 convolution, batch norm, ReLU] to full size.

    Args:
        image_shape: (channels, side, side); the side is halved while it is even and above 7.
        width: channels at full size; each halving doubles them, up to 8 times.
        latent_dim: length of the latent.
        num_classes, embedding: classes, and the length of their embedding beside the latent.

    Raises:
        ValueError: for a side that cannot be halved down to at most 16, or a width below 1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 128,
        width: int = 16,
        num_classes: int = 0,
        embedding: int = 64,
    ) -> None:
        super().__init__(image_shape, latent_dim, num_classes, embedding)
        require_widths(width)
        channels, side, other = image_shape
        if side != other:
            raise ValueError(f"ConvGenerator needs square images, got {side}x{other}; resize them (--size)")
        halvings, side = halved(side, above=7)
        if side > 16 or not halvings:
            raise ValueError(
                f"size {image_shape[1]}: the conv generator doubles a map of at most 16 sites up to the "
                f"size of the image: sides such as 28, 32, 48, 64, 96 and 128 work. "
                "Use --size with one of these, or --gen vanilla."
            )
        widths = doubled_widths(width, halvings)[::-1]
        self.start = (widths[0], side, side)
        self.project = nn.Linear(self.condition_dim, widths[0] * side * side, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [
                PlainUpsampleConv2d(before, after, 3, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.layers = FusedSequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh())

    def forward(
        self, z: Float[Tensor, "batch latent"], labels: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        return self.layers(self.project(self.condition(z, labels)).view(-1, *self.start))
