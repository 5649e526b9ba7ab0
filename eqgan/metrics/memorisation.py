"""Whether samples are copies of training images, moved or not: nearest neighbours under a group."""

from dataclasses import asdict, dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from eqgan.groups import P4M, PlaneGroup, scalar
from eqgan.nn import act

_ROWS = 512  # rows of a distance matrix held at once


@dataclass(frozen=True)
class Memorisation:
    """How near samples lie to the training images, as measured by fresh real images.

    Args:
        share: of samples that lie nearer to a training image than all but 1 % of the fresh ones do; 0.01
            where samples are as fresh as these, 1 where all are copies.
        ratio: median distance of samples over that of fresh images; 0 where most samples are copies, 1 where
            they are as far as fresh images.
        distance: median distance of samples, the root of the mean squared difference of pixels in [-1, 1].
        group: under which copies count.
    """

    share: float
    ratio: float
    distance: float
    group: str

    def as_dict(self) -> dict[str, float | str]:
        """All fields as plain values."""
        return asdict(self)


def memorisation(
    samples: Float[Tensor, "samples channels height width"],
    training: Float[Tensor, "training c h w"],
    fresh: Float[Tensor, "fresh c h w"],
    group: PlaneGroup = P4M,
) -> Memorisation:
    """Compare how near samples and fresh real images come to the training images.

    Args:
        samples: generated, in [-1, 1].
        training: what the generator was trained on, in [-1, 1].
        fresh: real images it was not trained on, of the same law; some hundreds at least.
        group: a training image moved by any element of it counts as the image itself.

    Raises:
        ValueError: for an empty set, or images of different shapes.

    References:
        Meehan et al., arXiv:2004.05675 (data copying: distances to the training set against those of fresh
        data); the quotient by a group is ours.

    >>> images = torch.rand(8, 1, 4, 4) * 2 - 1
    >>> memorisation(images.rot90(1, (2, 3)), images, torch.rand(9, 1, 4, 4)).share
    1.0
    """
    ours, theirs = (nearest_distances(images, training, group) for images in (samples, fresh))
    threshold = theirs.quantile(0.01)
    return Memorisation(
        share=(ours < threshold).double().mean().item(),
        ratio=(ours.median() / theirs.median().clamp_min(1e-12)).item(),
        distance=ours.median().item(),
        group=group.name,
    )


def nearest_distances(
    images: Float[Tensor, "n channels height width"],
    training: Float[Tensor, "training c h w"],
    group: PlaneGroup = P4M,
) -> Float[Tensor, " n"]:
    """Distance of each image to the orbits of the training images: min over t and g of rms(g x - t).

    Neighbours are found by matrix products, the distance to the one found is taken directly: exact zeros for
    copies. Time O(n training |G|); memory O(512 training).

    Raises:
        ValueError: for an empty set, or images of different shapes.
    """
    if not len(images) or not len(training) or images.shape[1:] != training.shape[1:]:
        raise ValueError(
            f"expected two sets of images of one shape, got {tuple(images.shape)} and {tuple(training.shape)}"
        )
    centre = training.mean(0)  # products of centred images lose fewer digits
    columns = (training - centre).flatten(1)
    norms = columns.square().sum(1)
    least = images.new_full((len(images),), torch.inf)
    for g in range(group.order):
        moved = act(g, images, scalar(group, images.shape[1]))
        for start in range(0, len(images), _ROWS):
            rows = moved[start : start + _ROWS]
            products = torch.addmm(norms[None], (rows - centre).flatten(1), columns.T, alpha=-2)
            nearest = training[products.argmin(1)]
            found = (rows - nearest).square().flatten(1).mean(1)
            least[start : start + _ROWS] = torch.minimum(least[start : start + _ROWS], found)
    return least.sqrt()
