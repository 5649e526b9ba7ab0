"""How far a score is from being invariant: zero for an exact network, of order one for a blind one."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from eqgan.groups import PlaneGroup, scalar
from eqgan.metrics.features import evaluating
from eqgan.nn import act


def invariance_error(
    network: nn.Module, images: Float[Tensor, "batch channels height width"], group: PlaneGroup
) -> float:
    """Mean over images and group elements of |f(x) - f(g x)|, over the standard deviation of f(x).

    Computed in float64, so that rounding in the network's own precision does not hide or fake a break.

    Args:
        network: from images to one number each, or to vectors (the error is then the mean over entries).
        images: at least two; square if the group has quarter turns.
        group: whose non-trivial elements are tried; 0 for the trivial group.

    Raises:
        ValueError: for fewer than two images, or a network that gives all of them the same score.
    """
    if len(images) < 2:
        raise ValueError(f"expected at least 2 images to measure the spread of scores, got {len(images)}")
    dtype = next((p.dtype for p in network.parameters()), torch.float64)
    try:
        with evaluating(network.double()):
            images = images.double()
            reference = network(images)
            spread = reference.std(0).clamp_min(0)
            if not bool((spread > 0).any()):
                raise ValueError("the network gives every image the same score; its invariance says nothing")
            image_type = scalar(group, images.shape[1])
            errors = [
                (network(act(g, images, image_type)) - reference).abs().mean(0) for g in range(1, group.order)
            ]
    finally:
        network.to(dtype)
    if not errors:
        return 0.0
    return (torch.stack(errors).mean(0) / spread)[spread > 0].mean().item()
