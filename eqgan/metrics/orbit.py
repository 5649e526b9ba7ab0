"""How far the law of a set of images is from invariance under a group, as a feature network sees it."""

import torch
from jaxtyping import Float
from torch import Tensor

from eqgan.groups import PlaneGroup, scalar
from eqgan.nn import act

from .features import FeatureExtractor
from .frechet import FeatureStatistics, frechet_distance


def orbit_distance(
    images: Float[Tensor, "samples channels height width"], extractor: FeatureExtractor, group: PlaneGroup
) -> float:
    """Fréchet distance between images and the same images moved, mean over the elements but the identity.

    Nearly 0 where every orientation is drawn equally often. A finite sample leaves a floor of some
    (features) / (samples); it is that of real images of the same number.

    Args:
        images: in [-1, 1], square if the group has quarter turns.
        extractor: a network that is *not* invariant, such as the shipped one; an invariant one sees nothing.
        group: not trivial.

    Raises:
        ValueError: for the trivial group.

    References:
        In the manner of Birrell et al., arXiv:2202.01129, section 5 (invariance of the generated law).
    """
    if group.order == 1:
        raise ValueError(f"{group} moves nothing: expected a group of order 2 or more, such as p4")
    still = FeatureStatistics.from_features(extractor.extract(images))
    image_type = scalar(group, images.shape[1])
    distances = []
    for g in range(1, group.order):
        moved = act(g, images, image_type)
        distances.append(frechet_distance(still, FeatureStatistics.from_features(extractor.extract(moved))))
    return torch.stack(distances).mean().item()
