"""Samples of a trained GAN: the same for the same seed however many are asked for, truncated, in orbits."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from eqgan.groups import PlaneGroup, scalar
from eqgan.networks import OrbitGenerator
from eqgan.nn import act
from eqgan.training.module import GAN

BATCH = 1000  # latents drawn at once: part of what a seed means


class Samples(NamedTuple):
    """Some samples with what they were drawn from.

    Attributes:
        images: in [-1, 1], on the CPU.
        latents: of each.
        labels: of each, None if the GAN is unconditional.
    """

    images: Float[Tensor, "n channels height width"]
    latents: Float[Tensor, "n latent"]
    labels: Int64[Tensor, " n"] | None


def draw_samples(
    gan: GAN, count: int, seed: int = 0, truncation: float | None = None, label: int | None = None
) -> Iterator[Samples]:
    """Samples of the averaged generator, some at a time.

    The first samples of a seed are the same, up to rounding, however many are drawn and on whatever device.

    Args:
        gan: on its device.
        count: how many in all.
        seed: of latents and labels.
        truncation: latents are standard normal, cut off at this magnitude; None: they are not cut.
        label: of all samples; None draws them evenly at random, if the GAN is conditional.

    Raises:
        ValueError: for a class that the GAN does not have, or a number out of range.
    """
    if count < 1:
        raise ValueError(f"expected at least 1 sample, got {count}")
    require_class(gan, label)
    classes = gan.generator.num_classes
    draws = torch.Generator().manual_seed(seed)
    for start in range(0, count, BATCH):
        latents = gan.generator.draw_latents(BATCH, draws)[: count - start]
        labels = torch.randint(classes, (BATCH,), generator=draws)[: count - start] if classes else None
        if labels is not None and label is not None:
            labels = torch.full_like(labels, label)
        latents = latents if truncation is None else truncated(latents, truncation, gan)
        images = torch.cat([some.float().cpu() for some, _ in gan.sampled(latents, labels)])
        yield Samples(images, latents.cpu(), labels)


def require_class(gan: GAN, label: int | None) -> None:
    """Raises ValueError unless the GAN draws images of this class, or of any if it is None."""
    classes = gan.generator.num_classes
    if label is not None and not classes:
        raise ValueError(
            f"class {label} was asked for, but this GAN is unconditional: it knows no classes. "
            "Leave --class out, or train a conditional one"
        )
    if label is not None and not 0 <= label < classes:
        raise ValueError(f"there is no class {label}: this GAN draws {classes} classes, 0 to {classes - 1}")


def truncated(latents: Float[Tensor, "n latent"], limit: float, gan: GAN) -> Float[Tensor, "n latent"]:
    """Standard normal latents moved into [-limit, limit], so that their law is the normal cut off there.

    A monotone map of each entry, so that a seed draws related images at every limit. The entry that picks
    the group element of an ``OrbitGenerator`` stays as it is: all elements remain equally likely.

    Raises:
        ValueError: for a limit that is not positive.

    References:
        Brock et al., arXiv:1809.11096, section 3.1: the truncation trick, by drawing again.
    """
    if not limit > 0:
        raise ValueError(f"--truncation: expected a number above 0, got {limit}")
    outside = torch.special.ndtr(torch.tensor(-float(limit), dtype=torch.float64))
    uniform = outside + torch.special.ndtr(latents.cpu().double()) * (1 - 2 * outside)
    moved = torch.special.ndtri(uniform).clamp(-limit, limit).to(latents)
    if isinstance(gan.generator, OrbitGenerator):
        moved = torch.cat([moved[:, :-1], latents[:, -1:]], 1)
    return moved


def orbits(
    images: Shaped[Tensor, "n channels height width"], group: PlaneGroup
) -> Shaped[Tensor, "n order channels height width"]:
    """Every image moved by every element of the point group, the identity first; exact.

    Raises:
        ValueError: if the group does not map the images to themselves.
    """
    height, width = images.shape[-2:]
    if height != width and any(matrix[0, 0] == 0 for matrix in group.point_group.elements):
        raise ValueError(f"{group} has quarter turns, which do not map {height}x{width} images to themselves")
    image_type = scalar(group, images.shape[1])
    return torch.stack([act(g, images, image_type) for g in range(group.order)], 1)


def to_bytes(images: Float[Tensor, "*n channels height width"]) -> UInt8[Tensor, "*n channels height width"]:
    """Images in [-1, 1] as bytes, rounded half up: the inverse of ``to_unit``.

    >>> to_bytes(torch.tensor([-1.0, 0.0, 1.0]).view(3, 1, 1)).flatten().tolist()
    [0, 128, 255]
    """
    return ((images + 1) * 127.5 + 0.5).floor().clamp(0, 255).to(torch.uint8)
