"""Generators: from a latent to an image in [-1, 1]."""

import itertools
from abc import ABC, abstractmethod

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import SQUARE_PLANE_GROUPS, PlaneGroup, scalar
from eqgan.nn import act


class Generator(nn.Module, ABC):
    """Draws images from latents.

    Attributes:
        image_shape: (channels, height, width) of the images.
        latent_dim: length of a latent, which is standard normal.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int) -> None:
        super().__init__()
        if latent_dim < 1:
            raise ValueError(f"expected a latent of at least 1 dimension, got {latent_dim}")
        self.image_shape = tuple(image_shape)
        self.latent_dim = latent_dim

    @abstractmethod
    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        """Images in [-1, 1]."""

    def draw_latents(self, count: int, generator: torch.Generator | None = None) -> Float[Tensor, "n latent"]:
        """Standard normal latents on the device of the weights; the same numbers on any device if a CPU
        generator is given."""
        weight = next(self.parameters())
        if generator is None:
            return torch.randn(count, self.latent_dim, device=weight.device, dtype=weight.dtype)
        z = torch.randn(count, self.latent_dim, generator=generator, device=generator.device)
        return z.to(weight)


class OrbitGenerator(Generator):
    """Any generator with a random group element in its latent, which moves the image: g G(z).

    Its law is exactly invariant under the group, whatever ``base`` has learnt. To an invariant discriminator
    the two are the same generator: it cannot see in which orientation an image is drawn, so it cannot teach
    ``base`` to draw all of them, and without the random element the samples gather at a few orientations.

    Args:
        base: the generator that is trained.
        group: plane group of the square lattice, usually the discriminator's.

    References:
        Birrell et al., arXiv:2202.01129 (structure-preserving GANs).
    """

    def __init__(self, base: Generator, group: PlaneGroup) -> None:
        super().__init__(base.image_shape, base.latent_dim + 1)
        channels, height, width = base.image_shape
        if height != width or group.lattice != "square":
            raise ValueError(
                f"{group} does not map {height}x{width} images to themselves; use square images and one of "
                f"{', '.join(SQUARE_PLANE_GROUPS)}, or --symmetrise false"
            )
        self.base, self.group = base, group
        self.image_type = scalar(group, channels)

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        images = self.base(z[:, :-1])
        # Phi(z) of a standard normal is uniform: it picks the element
        uniform = torch.special.ndtr(z[:, -1].float())
        element = (self.group.order * uniform).long().clamp_max(self.group.order - 1)
        rows = [(element == g).nonzero().squeeze(1) for g in range(self.group.order)]
        moved = [act(g, images[chosen], self.image_type) for g, chosen in enumerate(rows)]
        return torch.cat(moved)[torch.cat(rows).argsort()]


class VanillaGenerator(Generator):
    """Dense layers with LeakyReLU 0.2 and a tanh.

    Args:
        image_shape: (channels, height, width).
        hidden: widths of the hidden layers.
        batch_norm: batch norm after each hidden layer; the tutorial has none.

    References:
        The vanilla GAN of Rath, 2020: 128 -> 256 -> 512 -> 1024 -> 784, 1,493,520 parameters.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        latent_dim: int = 128,
        hidden: tuple[int, ...] = (256, 512, 1024),
        batch_norm: bool = False,
    ) -> None:
        super().__init__(image_shape, latent_dim)
        sizes = [latent_dim, *hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes):
            norm = [nn.BatchNorm1d(after)] if batch_norm else []
            layers += [nn.Linear(before, after), *norm, nn.LeakyReLU(0.2)]
        channels, height, width = image_shape
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], channels * height * width), nn.Tanh())

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        return self.layers(z).view(-1, *self.image_shape)


class ConvGenerator(Generator):
    """A dense projection to a small map, then [nearest x2, 3x3 convolution, batch norm, ReLU] to full size.

    Args:
        image_shape: (channels, side, side); the side is halved while it is even and above 7.
        width: channels at full size; each halving doubles them, up to 8 times.
        latent_dim: length of the latent.

    Raises:
        ValueError: for a side that cannot be halved down to at most 16.
    """

    def __init__(self, image_shape: tuple[int, int, int], latent_dim: int = 128, width: int = 16) -> None:
        super().__init__(image_shape, latent_dim)
        channels, side, other = image_shape
        if side != other:
            raise ValueError(f"ConvGenerator needs square images, got {side}x{other}; resize them (--size)")
        halvings = 0
        while side % 2 == 0 and side > 7:
            side, halvings = side // 2, halvings + 1
        if side > 16 or not halvings:
            raise ValueError(
                f"size {image_shape[1]}: the conv generator doubles a map of at most 16 sites up to the "
                f"size of the image: sides such as 28, 32, 48, 64, 96 and 128 work. "
                "Use --size with one of these, or --gen vanilla."
            )
        widths = [width * min(8, 2**k) for k in range(halvings, -1, -1)]
        self.start = (widths[0], side, side)
        self.project = nn.Linear(latent_dim, widths[0] * side * side, bias=False)
        layers: list[nn.Module] = [nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in itertools.pairwise(widths):
            layers += [
                nn.Upsample(scale_factor=2),
                nn.Conv2d(before, after, 3, padding=1, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], channels, 3, padding=1), nn.Tanh())

    def forward(self, z: Float[Tensor, "batch latent"]) -> Float[Tensor, "batch channels height width"]:
        return self.layers(self.project(z).view(-1, *self.start))
