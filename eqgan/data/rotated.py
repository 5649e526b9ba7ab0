"""Test images turned by arbitrary angles: what a network that knows rotations should not notice."""

from dataclasses import replace

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.rotation import rotate_uint8

SEED = 360
"""Of the angles, the same for every set."""


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
    channels = [rotate_uint8(channel.numpy(), angles) for channel in images.images.unbind(1)]
    turned = torch.from_numpy(np.stack(channels, axis=1))
    name = f"{images.name}-rotated"
    return ImageSet.of(name, turned, images.labels, torch.from_numpy(angles), images.class_names)
