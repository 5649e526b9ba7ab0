"""Every equivariant generator by name. A new one adds a line; every law then runs over it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from eqgan.groups import PlaneGroup
from eqgan.networks import EquivariantGenerator, GroupGenerator, ResidualGenerator
from eqgan.nn import FieldBatchNorm2d

Factory = Callable[..., EquivariantGenerator]

# the smallest side, and one whose first map has an odd side
EQUIVARIANT: dict[str, tuple[Factory, tuple[int, int]]] = {
    "group": (GroupGenerator, (4, 12)),
    "residual": (ResidualGenerator, (8, 20)),
}


def generator(
    name: str, group: PlaneGroup, side: int | None = None, channels: int = 1, seed: int = 0, **options: Any
) -> EquivariantGenerator:
    """In float64, in evaluation, with biases and running statistics that are not those of the start."""
    torch.manual_seed(seed)
    factory, _ = EQUIVARIANT[name]
    side = side or 8
    settings = {"latent_dim": 5, "width": 8, "embedding": 3} | options
    network = factory((channels, side, side), group, **settings).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.normal_(std=0.3)
        for module in network.modules():
            if isinstance(module, FieldBatchNorm2d):
                module.running_mean.normal_(std=0.3), module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def latents(network: nn.Module, count: int = 3, seed: int = 7) -> Tensor:
    """Numbers of one's own, that do not disturb the global stream."""
    return network.draw_latents(count, torch.Generator().manual_seed(seed))
