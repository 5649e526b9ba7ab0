"""Rotated digits that are always there: the 1,797 of scikit-learn, made to look like Rotated MNIST."""

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.rotation import rotate_uint8

SEED = 1797
"""Of the permutation and the angles."""

TRAIN = 1437
"""Images in the training split; the other 360 are the test split."""

DIGITS_SHA256 = "c76698fafe7a2f4c2bdb857e6a5dad12e2b4742338496665d0d063e36aadf490"
"""SHA-256 of the source (see `Source.of`): enlarging and rotating are integer arithmetic."""

_BITS = 10  # weights of the enlargement are multiples of 2^-10
_BOX, _FRAME = 20, 28  # as in MNIST: a 20 x 20 box centred in 28 x 28, so that rotation cuts nothing off


def rotated_digits(size: int | None = None) -> Source:
    """Return scikit-learn's digits, enlarged to 28 x 28 and rotated by one angle each.

    The 8 x 8 images with values 0 to 16 are enlarged to 20 x 20 by bicubic interpolation (Keys, a = -0.5)
    with black outside, centred in 28 x 28, permuted by a frozen stream, and rotated by angles from U[0, 360).

    Args:
        size: pixels a side of `Source.split`, if not 28.
    """
    from sklearn.datasets import load_digits  # slow to import, and not needed when MNIST is there

    digits = load_digits()
    stream = np.random.RandomState(SEED)
    order = stream.permutation(len(digits.target))
    angles = stream.uniform(0.0, 360.0, len(order))
    images = rotate_uint8(enlarge(digits.images[order].astype(np.int64)), angles)
    pixels, labels = (
        torch.from_numpy(images)[:, None],
        torch.from_numpy(digits.target[order].astype(np.int64)),
    )
    names = tuple(str(digit) for digit in range(10))
    sets = {
        split: ImageSet.of("digits", pixels[part], labels[part], torch.from_numpy(angles)[part], names)
        for split, part in (("train", slice(0, TRAIN)), ("test", slice(TRAIN, None)))
    }
    return Source.of("digits", sets, size)


def enlarge(images: np.ndarray) -> np.ndarray:
    """Enlarge (N, 8, 8) integers 0 to 16 to (N, 28, 28) bytes, in integer arithmetic."""
    weights = _bicubic(_BOX, images.shape[-1])
    total = (weights @ images @ weights.T) * 255  # in units of 2^-20 / 16
    box = np.clip((total + (1 << (2 * _BITS + 3))) >> (2 * _BITS + 4), 0, 255).astype(np.uint8)
    margin = (_FRAME - _BOX) // 2
    return np.pad(box, ((0, 0), (margin, margin), (margin, margin)))


def _bicubic(large: int, small: int) -> np.ndarray:
    """Return the (large, small) matrix of Keys' cubic kernel (a = -0.5) in units of 2^-10."""
    centres = (np.arange(large) + 0.5) * small / large - 0.5
    t = np.abs(centres[:, None] - np.arange(small))
    near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
    kernel = np.where(t <= 1, near, np.where(t < 2, far, 0.0))
    return np.rint(kernel * (1 << _BITS)).astype(np.int64)
