"""Every discriminator body by name. A new body adds a line to a table; every law then runs over it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eqgan.groups import PlaneGroup
from eqgan.networks import (
    ConvDiscriminator,
    Discriminator,
    P4CNNDiscriminator,
    ResidualDiscriminator,
    StridedDiscriminator,
)

Factory = Callable[..., Discriminator]

# the smallest side, and one whose pools and top layer meet an odd and an even size
BODIES: dict[str, tuple[Factory, tuple[int, int]]] = {
    "conv": (ConvDiscriminator, (8, 28)),
    "p4cnn": (P4CNNDiscriminator, (22, 28)),
    "residual": (ResidualDiscriminator, (8, 28)),
    "strided": (StridedDiscriminator, (16, 28)),
}
SPECTRAL = (None, "filter", "bank", "operator")


def discriminator(
    name: str, group: PlaneGroup, side: int | None = None, channels: int = 1, seed: int = 0, **options: Any
) -> Discriminator:
    """In float64 and with biases that are not zero, on the larger of the two sides unless told otherwise."""
    torch.manual_seed(seed)
    factory, sides = BODIES[name]
    settings = {"width": 8, "match": "parameters", "spectral": "bank", "pool": "max"} | options
    network = factory((channels, side or sides[1], side or sides[1]), group, **settings).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.1)
    return network


def images(network: Discriminator, count: int = 3, seed: int = 7) -> Tensor:
    """Images in [-1, 1]; numbers of one's own do not disturb the global stream."""
    draws = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, *network.image_shape, generator=draws, dtype=torch.float64) - 1
