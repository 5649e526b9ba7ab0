"""Classifiers: a body over any plane group and a head on its invariant features."""

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import PlaneGroup
from eqgan.networks.bodies import P4CNNBody
from eqgan.networks.budget import Match
from eqgan.networks.fiber import FiberPool
from eqgan.networks.parts import Body
from eqgan.nn.pooling import PoolMode


class Classifier(nn.Module, ABC):
    """Tells classes of images apart: one logit a class.

    Attributes:
        image_shape: (channels, side, side) of the images.
        num_classes: how many logits.
        group: the plane group under which the logits are exactly invariant.
    """

    def __init__(self, image_shape: tuple[int, int, int], num_classes: int, group: PlaneGroup) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"expected at least 2 classes, got {num_classes}")
        self.image_shape = tuple(image_shape)
        self.num_classes = num_classes
        self.group = group

    @abstractmethod
    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The logits of images in [-1, 1]."""

    @abstractmethod
    def stages(self) -> dict[str, nn.ModuleList]:
        """Its parts from image to logits, in order, the last one ``"head"``; together they hold every
        parameter once (``freeze`` and ``parameter_groups`` go by them)."""


class BodyClassifier(Classifier):
    """A body and a head on its features; without a head the body's last layer makes the logits.

    Args:
        body: from images to (batch, ``body.features``), invariant under ``body.group``.
        head: from features to logits, or None.
    """

    def __init__(
        self, image_shape: tuple[int, int, int], num_classes: int, body: Body, head: nn.Module | None = None
    ) -> None:
        super().__init__(image_shape, num_classes, body.group)
        self.body, self.head = body, head

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        features = self.body(x)
        return features if self.head is None else self.head(features)

    def stages(self) -> dict[str, nn.ModuleList]:
        parts = self.body.stages()
        last = parts.popitem()[1] if self.head is None else nn.ModuleList([self.head])
        return {**parts, "head": last}


class P4CNNClassifier(BodyClassifier):
    """The seven-layer networks of Cohen & Welling with any plane group; the top fields are the classes.

    ==============  ======  =========  =======  =========  ======================================
    the paper's     group   width      dropout  fiber      parameters, 28x28 grey and ten classes
    ==============  ======  =========  =======  =========  ======================================
    Z2CNN           z2      20         0.3      none       21,750
    P4CNN-RP        p4      40         0        "group"    21,750
    P4CNN           p4      20         0        none       24,680
    ==============  ======  =========  =======  =========  ======================================

    P4CNN of the paper ends in the maximum over the fiber; ``pool="mean"`` is the form without this last max
    pooling, invariant too. Given p4m it is P4MCNN.

    Args:
        image_shape: (channels, side, side), even sides from 22.
        num_classes: how many classes.
        group: plane group of the square lattice.
        width: Z2-equivalent width of every layer but the top; 20 under p4 with ``"parameters"`` is 10 fields.
        match: what stays equal between groups.
        dropout: after layers 1 and 3 to 6.
        fiber: pool over part of the fiber after some of layers 1 to 6, such as ``FiberPool()`` for P4CNN-RP.
        pool: over the fiber, after the top layer.

    References:
        Cohen & Welling, arXiv:1602.07576, section 8.1.
    """

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_classes: int,
        group: PlaneGroup,
        width: int = 20,
        match: Match = "parameters",
        dropout: float = 0.0,
        fiber: FiberPool | None = None,
        pool: PoolMode = "max",
    ) -> None:
        body = P4CNNBody(
            image_shape, group, width, match, pool=pool, dropout=dropout, fiber=fiber, top_fields=num_classes
        )
        super().__init__(image_shape, num_classes, body)
