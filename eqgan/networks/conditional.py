"""What a class label adds to a network: heads that judge it, and the check that it is there."""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

Conditioning = Literal["projection", "auxiliary"]


def require_labels(labels: Tensor | None, num_classes: int, what: str) -> None:
    """Raises ValueError unless labels are given exactly to a conditional network."""
    if num_classes and labels is None:
        raise ValueError(f"{what} is conditional on {num_classes} classes: expected labels, got none")
    if labels is not None and not num_classes:
        raise ValueError(f"{what} is unconditional and got labels; build it with num_classes")


class ProjectionHead(nn.Module):
    """What a label adds to a score: <features, W y + b> for a one-hot y.

    References:
        Miyato & Koyama, arXiv:1802.05637, equation 3.
    """

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        self.directions = nn.Linear(num_classes, features)

    def forward(
        self, features: Float[Tensor, "batch features"], labels: Int64[Tensor, "batch"]
    ) -> Float[Tensor, "batch"]:
        directions = F.embedding(labels, self.directions.weight.T) + self.directions.bias
        return (features * directions).sum(1)


class GivenLabel(nn.Module):
    """A conditional discriminator asked about one class: a map of images alone."""

    def __init__(self, discriminator: nn.Module, label: int) -> None:
        super().__init__()
        self.discriminator, self.label = discriminator, label

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch"]:
        return self.discriminator(x, torch.full((len(x),), self.label, device=x.device))


def class_head(num_classes: int, features: int, conditioning: Conditioning) -> nn.Module | None:
    """The projection of a label onto features, or a classifier of them, or None without classes.

    Raises:
        ValueError: for another name.
    """
    if conditioning not in ("projection", "auxiliary"):
        raise ValueError(f"expected conditioning 'projection' or 'auxiliary', got {conditioning!r}")
    if not num_classes:
        return None
    if conditioning == "projection":
        return ProjectionHead(num_classes, features)
    return nn.Linear(features, num_classes)
