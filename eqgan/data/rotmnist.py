"""Rotated MNIST, defined once: 12,000 train, 50,000 test and 8,000 unused digits, each at its own angle.

After Larochelle, Erhan, Courville, Bergstra and Bengio, "An empirical evaluation of deep architectures on
problems with many factors of variation", ICML 2007. Their files are not redistributable; these are made anew
from MNIST, so that numbers compare in kind, not digit for digit.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eqgan.data.mnist import Mnist, ensure_mnist, load_mnist
from eqgan.data.rotation import rotate_uint8
from eqgan.files import atomic_write, cache_folder, read_arrays

log = logging.getLogger("eqgan")

SEED = 2007
"""Of the permutation and the angles: the year of the original."""

ROTMNIST_SHA256 = "158a7e61b8178ee9d868137ce2130725ba7d74509016a89dc22a9027a269e893"
"""SHA-256 over all 70,000 images, then all 70,000 labels, in permuted order, as bytes."""

SPLITS = {
    "train": slice(0, 12_000),
    "validation": slice(10_000, 12_000),  # the last 2,000 of train: train means all 12,000
    "test": slice(12_000, 62_000),
    "extra": slice(62_000, 70_000),
}


@dataclass(frozen=True)
class Split:
    """Images uint8 (N, 28, 28), labels uint8 (N,) and angles float64 (N,) in degrees, counter-clockwise."""

    images: np.ndarray
    labels: np.ndarray
    angles: np.ndarray


@dataclass(frozen=True)
class RotatedMnist:
    """The four splits of Rotated MNIST; `validation` is the last 2,000 of the 12,000 of `train`."""

    train: Split
    validation: Split
    test: Split
    extra: Split


def rotated_mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> RotatedMnist:
    """Return Rotated MNIST, from the cache or (some seconds, once) from MNIST.

    MNIST itself has to be under the data root, or downloadable, even when the cache holds the rotated images:
    what `root` says decides, not what happened earlier on this machine.

    Args:
        root: the data root; see `eqgan.data.root.data_root`.
        download: whether MNIST may be downloaded.

    Raises:
        FileNotFoundError: MNIST is not there and could not be downloaded.
        ValueError: MNIST is damaged, or the rotation came out different on this machine.
    """
    ensure_mnist(root, download)
    path = cache_folder() / f"rotmnist-{ROTMNIST_SHA256[:12]}.npz"
    cached = _read_cache(path)
    if cached is None:
        images, labels = generate(load_mnist(root, download=False))
        _check(content_sha256(images, labels))
        _write_cache(path, images, labels)
    else:
        images, labels = cached
    _, angles = permutation_and_angles(len(images))
    return RotatedMnist(
        **{name: Split(images[part], labels[part], angles[part]) for name, part in SPLITS.items()}
    )


def permutation_and_angles(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the order of the digits and their angles in degrees, from NumPy's frozen legacy stream.

    >>> order, angles = permutation_and_angles(70_000)
    >>> order[:3].tolist(), angles[:2].round(3).tolist()
    ([33454, 45101, 2459], [317.383, 272.754])
    """
    stream = np.random.RandomState(SEED)
    return stream.permutation(count), stream.uniform(0.0, 360.0, count)


def unseen_test_rows(train: int = 60_000, test: int = 10_000) -> np.ndarray:
    """Return which of MNIST's own test images are not, rotated, among the training images of Rotated MNIST.

    The order of Rotated MNIST mixes MNIST's training and test images, so that only these can test a network
    trained on it on upright digits.

    Args:
        train: number of MNIST's training images.
        test: number of its test images.

    >>> rows = unseen_test_rows()
    >>> len(rows), rows[:3].tolist()
    (8262, [2, 3, 4])
    """
    order, _ = permutation_and_angles(train + test)
    seen = order[SPLITS["train"]]
    return np.setdiff1d(np.arange(test), seen[seen >= train] - train)


def generate(mnist: Mnist) -> tuple[np.ndarray, np.ndarray]:
    """Permute and rotate all digits, train before test.

    Returns:
        Images uint8 (N, 28, 28) and labels uint8 (N,), in permuted order.
    """
    images = np.concatenate([mnist.train_images, mnist.test_images])
    labels = np.concatenate([mnist.train_labels, mnist.test_labels])
    order, angles = permutation_and_angles(len(images))
    return rotate_uint8(images[order], angles), labels[order].astype(np.uint8)


def content_sha256(images: np.ndarray, labels: np.ndarray) -> str:
    """Return the SHA-256 over uint8 images and labels, in this order."""
    digest = hashlib.sha256(np.ascontiguousarray(images))
    digest.update(np.ascontiguousarray(labels))
    return digest.hexdigest()


def _check(got: str) -> None:
    if got != ROTMNIST_SHA256:
        raise ValueError(
            f"Rotated MNIST came out with SHA-256 {got}, expected {ROTMNIST_SHA256}: this installation of "
            "NumPy computes another rotation. Please report it with the versions of NumPy and Python."
        )


def _read_cache(path: Path) -> tuple[np.ndarray, np.ndarray] | None:
    """Return images and labels from the cache, or None where there is none or it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path)
        images, labels = arrays["images"], arrays["labels"]
        if content_sha256(images, labels) == ROTMNIST_SHA256:
            return images, labels
        reason = "its content has another hash."
    except (KeyError, ValueError) as error:
        reason = str(error)
    log.warning("The cached Rotated MNIST %s is damaged, making it again: %s", path, reason)
    return None


def _write_cache(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    """Keep the rotated images for the next run; a run goes on without, if that is impossible."""
    try:
        with atomic_write(path) as temporary:
            np.savez(temporary, images=images, labels=labels)
    except OSError as error:
        log.warning("Rotated MNIST is not cached: %s. The next run will make it again.", error.strerror)
