"""Every discriminator and classifier by name. A new one adds a line to a table; every law then runs on it."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from eqgan.groups import PlaneGroup
from eqgan.networks import (
    AllCNN,
    Classifier,
    ConvDiscriminator,
    Discriminator,
    P4CNNClassifier,
    P4CNNDiscriminator,
    ResidualDiscriminator,
    ResNet18,
    ResNet44,
    StridedDiscriminator,
    WideKernelResNet,
    fiber_pool,
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


# the smallest side that reads well, another, and what makes it small or special
CLASSIFIERS: dict[str, tuple[type[Classifier], tuple[int, int], dict[str, Any]]] = {
    "p4cnn": (P4CNNClassifier, (22, 28), {}),
    "p4cnn-drop": (P4CNNClassifier, (22, 28), {"dropout": 0.3, "pool": "mean"}),
    "p4cnn-rp": (P4CNNClassifier, (22, 28), {"fiber": fiber_pool("group")}),
    "allcnn": (AllCNN, (28, 33), {}),
    "allcnn-pooled": (AllCNN, (28, 32), {"fiber": fiber_pool("group@2,5")}),
    "resnet18": (ResNet18, (32, 33), {"width": 2, "stem": "small"}),
    "resnet18-large": (ResNet18, (64, 65), {"width": 2, "pool": "max"}),
    "resnet18-pooled": (
        ResNet18,
        (32, 33),
        {"width": 2, "stem": "small", "fiber": fiber_pool("group@1,3,5")},
    ),
    "resnet44": (ResNet44, (12, 13), {"width": 2}),
    "wide": (WideKernelResNet, (20, 21), {"width": 4}),
}


def classifier(
    name: str, group: PlaneGroup, side: int | None = None, channels: int = 1, seed: int = 0, **options: Any
) -> Classifier:
    """Three classes, in float64, every scale, shift and bias drawn; on the smaller side by default."""
    torch.manual_seed(seed)
    factory, sides, special = CLASSIFIERS[name]
    settings = {"width": 10, "match": "parameters"} | special | options
    network = factory((channels, side or sides[0], side or sides[0]), 3, group, **settings).double()
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.3 * torch.rand_like(parameter))  # few units that a ReLU cuts off
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.9  # the statistics are those of the data after a step or two
    return network


def train_classifier(network: Classifier, steps: int = 2) -> Classifier:
    """Steps on random images; between them an evaluation, which fills the caches that a step must drop."""
    optimiser = torch.optim.SGD([p for p in network.parameters() if p.requires_grad], 0.05, 0.9)
    for step in range(steps):
        x = images(network, 6, seed=step)
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network.train()(x), torch.arange(6) % 3).backward()
        optimiser.step()
        with torch.no_grad():
            network.eval()(x)
    return network


def images(network: Discriminator | Classifier, count: int = 3, seed: int = 7) -> Tensor:
    """Images in [-1, 1]; numbers of one's own do not disturb the global stream."""
    draws = torch.Generator().manual_seed(seed)
    return 2 * torch.rand(count, *network.image_shape, generator=draws, dtype=torch.float64) - 1
