"""Test images turned by arbitrary angles: what a network that knows rotations should not notice."""

import math
import os
import tempfile
from dataclasses import replace

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.rotation import rotate_uint8
from eqgan.files import cache_folder, make_folder

SEED = 360
"""Of the angles, the same for every set."""
_BLOCK = 1024  # images at a time: a set that stays on the disk is not read whole to be turned
_IN_MEMORY = 2**28  # bytes; larger copies are mapped, as their originals may be


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
        OSError: large images, for whose copies the cache folder has no room.
    """
    angles = np.random.RandomState(seed).uniform(0.0, 360.0, len(images))
    turned = _room((len(images), *images.image_shape))
    parts = np.array_split(angles, range(_BLOCK, len(images), _BLOCK))
    for into, block, part in zip(turned.split(_BLOCK), images.blocks(_BLOCK), parts):
        for channel in range(into.shape[1]):
            into[:, channel] = torch.from_numpy(rotate_uint8(block[:, channel].numpy(), part))
    name = f"{images.name}-rotated"
    return ImageSet.of(name, turned, images.labels, torch.from_numpy(angles), images.class_names)


def _room(shape: tuple[int, ...]) -> torch.Tensor:
    """Bytes to write into; many are in a file of the cache folder that goes with the tensor."""
    size = math.prod(shape)
    if size <= _IN_MEMORY:
        return torch.empty(shape, dtype=torch.uint8)
    folder = cache_folder()
    make_folder(folder, "Set EQGAN_CACHE to a folder that can be made.")
    try:
        with tempfile.TemporaryFile(dir=folder) as file:  # has no name, and is gone when it is mapped no more
            os.posix_fallocate(file.fileno(), 0, size)  # an error here, not a signal when it is written
            return torch.from_numpy(np.memmap(file, np.uint8, "r+", shape=shape))
    except OSError as error:
        raise OSError(
            f"{folder}: expected room for {size / 1e9:.1f} GB of rotated test images ({error}). Set "
            "EQGAN_CACHE to a folder with more, or --judging.rotated false."
        ) from error
