"""Test images turned by arbitrary angles: what a network that knows rotations should not notice."""

from dataclasses import replace

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.rotation import rotate_uint8

SEED = 360
"""Of the angles, the same for every set."""
_BLOCK = 1024  # images at a time: a set that stays on the disk is not read whole to be turned


def with_rotated_test(source: Source) -> Source:
    """Return the source with its test images, each rotated by its own angle, as another test set."""
    further = {**source.further_tests, f"{source.name}-rotated": lambda: rotated(source.sets["test"])}
    return replace(source, further_tests=further)


def rotated(images: ImageSet, seed: int = SEED) -> ImageSet:
    """Rotate each image about its centre by an angle from U[0, 360), black outside; see `rotate_uint8`.

    Args:
        images: square ones.
        seed: of the angles.

    Raises:
        ValueError: the images are not square, or wider than 1,024 pixels.
    """
    angles = np.random.RandomState(seed).uniform(0.0, 360.0, len(images))
    turned = torch.empty((len(images), *images.image_shape), dtype=torch.uint8)
    parts = np.array_split(angles, range(_BLOCK, len(images), _BLOCK))
    for into, block, part in zip(turned.split(_BLOCK), images.blocks(_BLOCK), parts):
        for channel in range(into.shape[1]):
            into[:, channel] = torch.from_numpy(rotate_uint8(block[:, channel].numpy(), part))
    name = f"{images.name}-rotated"
    return ImageSet.of(name, turned, images.labels, torch.from_numpy(angles), images.class_names)
