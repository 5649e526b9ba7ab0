"""C4-MNIST: MNIST turned by quarter turns alone, whose law has exactly that symmetry.

Train: the 60,000 training images in their order, image i turned by ``turns[i]`` quarters, counter-clockwise,
with ``turns = numpy.random.RandomState(2402).randint(0, 4, 60000)``. Test: the 10,000 test images in all four
orientations, image i turned by g quarters at 4 i + g: a reference that is exactly symmetric. Nothing is
interpolated. The 600, 3,000 and 6,000 training images that equivariant diffusion models were tried on
(arXiv:2402.19369) are fractions of 0.01, 0.05 and 0.1.
"""

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.mnist import load_mnist

SEED = 2402
"""Of the turns of the training images."""


def c4_mnist(root: str | None = None, size: int | None = None) -> Source:
    """Return C4-MNIST, made from MNIST in a moment.

    Args:
        root: the data root; see `eqgan.data.root.data_root`.
        size: resize every image to `size` x `size`.

    Raises:
        FileNotFoundError: MNIST is not there and could not be downloaded.
        ValueError: MNIST is damaged.
    """
    mnist = load_mnist(root)
    turns = np.random.RandomState(SEED).randint(0, 4, len(mnist.train_labels))
    every = np.tile(np.arange(4), len(mnist.test_labels))
    sets = {
        "train": _turned(mnist.train_images, mnist.train_labels, turns),
        "test": _turned(mnist.test_images.repeat(4, axis=0), mnist.test_labels.repeat(4), every),
    }
    return Source.of("c4mnist", sets, size)


def quarter_turned(images: np.ndarray, turns: np.ndarray) -> np.ndarray:
    """Turn each of the images (N, side, side) counter-clockwise by its own number of quarters.

    >>> quarter_turned(np.array([[[1, 2], [3, 4]]]), np.array([1]))[0].tolist()
    [[2, 4], [1, 3]]
    """
    turned = np.empty_like(images)
    for quarters in range(4):
        chosen = turns == quarters
        turned[chosen] = np.rot90(images[chosen], quarters, axes=(1, 2))
    return turned


def _turned(images: np.ndarray, labels: np.ndarray, turns: np.ndarray) -> ImageSet:
    return ImageSet.of(
        "c4mnist",
        torch.from_numpy(quarter_turned(images, turns))[:, None],
        torch.from_numpy(labels.astype(np.int64)),
        torch.from_numpy(90.0 * turns),
        tuple("0123456789"),
    )
