"""A classifier that looks at an image in several orientations and answers with the mean."""

from math import gcd

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eqgan.data.augment import rotate
from eqgan.groups import PlaneGroup
from eqgan.networks import Classifier


class TurnedClassifier(Classifier):
    """The mean of a classifier's logits over an image turned by ``turns`` equal angles.

    A plane group of the square lattice knows quarter turns at most. The mean over 16 turns is what p4 leaves
    open, made up for by resampling: nearly invariant under 22.5 degrees too, and still exactly so under the
    network's own group. Of turns that differ by an element of that group one is computed: 16 cost p4 and p4m
    four passes, p2 eight, z2 all of them.

    Corners that come in are black, as in ``RandomRotation``, with which the network should have been trained.

    Args:
        network: the classifier.
        turns: how many angles divide the circle.

    Raises:
        ValueError: for less than one turn.

    >>> from eqgan.groups import P4
    >>> from eqgan.networks import P4CNNClassifier
    >>> TurnedClassifier(P4CNNClassifier((1, 28, 28), 10, P4), 16).degrees
    (0.0, 22.5, 45.0, 67.5)
    """

    def __init__(self, network: Classifier, turns: int) -> None:
        super().__init__(network.image_shape, network.num_classes, network.group)
        self.network, self.turns = network, turns
        self.degrees = distinct_turns(network.group, turns)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        logits = self.network(x)
        for degrees in self.degrees[1:]:
            logits = logits + self.network(rotate(x, torch.full(x.shape[:1], degrees, device=x.device)))
        return logits / len(self.degrees)

    def stages(self) -> dict[str, nn.ModuleList]:
        """Those of the classifier."""
        return self.network.stages()


def distinct_turns(group: PlaneGroup, turns: int) -> tuple[float, ...]:
    """One angle, in degrees, of each class of the multiples of 360 / turns that the group tells not apart.

    >>> from eqgan.groups import Z2, P2
    >>> distinct_turns(Z2, 4), distinct_turns(P2, 4), distinct_turns(P2, 3)
    ((0.0, 90.0, 180.0, 270.0), (0.0, 90.0), (0.0, 120.0, 240.0))
    """
    if turns < 1:
        raise ValueError(f"turns: expected at least 1, got {turns}")
    rotations = sum(int(a * d - b * c) == 1 for (a, b), (c, d) in group.point_group.elements)
    return tuple(360 * turn / turns for turn in range(turns // gcd(turns, rotations)))


def averaged_over_turns(network: Classifier, turns: int) -> Classifier:
    """The network, or its mean over turns where that is another function."""
    return TurnedClassifier(network, turns) if len(distinct_turns(network.group, turns)) > 1 else network
