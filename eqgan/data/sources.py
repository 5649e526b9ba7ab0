"""Every source of images by its name or path."""

import difflib
import logging
import os
import re
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from eqgan.data.bccd import BCCD
from eqgan.data.c4mnist import c4_mnist
from eqgan.data.cifar10 import PART, read_cifar10
from eqgan.data.digits import rotated_digits
from eqgan.data.folder import read_folder
from eqgan.data.imageset import ImageSet, Source
from eqgan.data.lensing.priors import TASKS
from eqgan.data.lensing.source import read_lenses
from eqgan.data.mirabest import read_mirabest
from eqgan.data.mnist import MnistNotFoundError, load_mnist
from eqgan.data.npz import read_npz
from eqgan.data.root import data_root
from eqgan.data.rotated import with_rotated_test
from eqgan.data.rotmnist import ROTMNIST_SHA256, SPLITS, rotated_mnist, unseen_test_rows
from eqgan.data.store import is_store, read_store

log = logging.getLogger("eqgan")

_DIGITS = tuple(str(digit) for digit in range(10))


def load_images(
    source: str, root: str | None = None, size: int | None = None, split: str = "train"
) -> ImageSet:
    """Load one split of a source; see `open_source`.

    Raises:
        ValueError: there is no such source or split, or its images cannot be used.
        FileNotFoundError: there is no such path, or a named set is neither there nor to be had.

    >>> digits = load_images("digits", split="test")
    >>> digits.name, tuple(digits.images.shape), digits.images.dtype
    ('digits', (360, 1, 28, 28), torch.uint8)
    """
    return open_source(source, root, size).split(split)


def open_source(source: str = "auto", root: str | None = None, size: int | None = None) -> Source:
    """Read a source of images.

    Args:
        source: `auto` (rotmnist, or digits with a warning where MNIST is not to be had), `rotmnist`, `mnist`
            (upright), `c4mnist` (in quarter turns), `digits`, `cifar10` (or what there is of it),
            `cifar10-17k`, `mirabest`, `bccd`, `lens` and `lens3` (simulated), a folder of images, an .npz
            file, or a store (see `eqgan.data.store`).
        root: where named sets are looked for; see `eqgan.data.root.data_root`.
        size: resize every image to `size` x `size` (Lanczos, anti-aliased).

    Returns:
        The source with its splits; its name is that of the set really used.

    Raises:
        ValueError: there is no such source, or its images cannot be used or do not fit into memory.
        FileNotFoundError: there is no such path, or a named set is neither there nor to be had.
    """
    if size is not None and not 1 <= size <= 4096:
        raise ValueError(
            f"--size: expected 1 to 4096 pixels, got {size}. Leave it out to keep the images' size."
        )
    if source in _NAMED:
        return _NAMED[source](root, size)
    if not source.strip():  # the path of nothing is the working directory
        raise ValueError(f"--data: expected {_accepted()}, got nothing")
    path = Path(source).expanduser()
    if is_store(path):
        return read_store(path, size)
    try:
        if path.is_dir():
            return read_folder(path, _name_of(path.resolve().name, "folder"), size)
        if path.is_file() and path.suffix.lower() == ".npz":
            return read_npz(path, _name_of(path.stem, "npz"), size)
    except MemoryError as error:
        raise ValueError(
            f"{path}: out of memory ({error}); images that do not fit are read from a store: eqgan convert"
        ) from error
    raise _unknown(source, path)


def _rotmnist(root: str | None, size: int | None) -> Source:
    rotated = rotated_mnist(root)
    sets = {}
    for field in fields(rotated):
        part = getattr(rotated, field.name)
        sets[field.name] = ImageSet.of(
            "rotmnist",
            torch.from_numpy(part.images)[:, None],
            torch.from_numpy(part.labels.astype(np.int64)),
            torch.from_numpy(part.angles),
            _DIGITS,
        )
    return Source(
        "rotmnist",
        sets,
        ROTMNIST_SHA256,
        size,
        validation_rows=range(len(rotated.train.labels))[SPLITS["validation"]],
        further_tests={"mnist": lambda: _upright_test(root)},
    )


def _upright_test(root: str | None) -> ImageSet:
    """Return the images of MNIST's test set that Rotated MNIST does not train on."""
    mnist = load_mnist(root)
    rows = unseen_test_rows(len(mnist.train_labels), len(mnist.test_labels))
    return _digit_set(mnist.test_images[rows], mnist.test_labels[rows])


def _mnist(root: str | None, size: int | None) -> Source:
    mnist = load_mnist(root)
    arrays = {
        "train": (mnist.train_images, mnist.train_labels),
        "test": (mnist.test_images, mnist.test_labels),
    }
    sets = {split: _digit_set(*pair) for split, pair in arrays.items()}
    return with_rotated_test(Source.of("mnist", sets, size))


def _digit_set(images: np.ndarray, labels: np.ndarray) -> ImageSet:
    """Return upright digits as a set."""
    pixels = torch.from_numpy(images)[:, None]
    return ImageSet.of("mnist", pixels, torch.from_numpy(labels.astype(np.int64)), None, _DIGITS)


def _digits(root: str | None, size: int | None) -> Source:
    return rotated_digits(size)


def _bccd(root: str | None, size: int | None) -> Source:
    return with_rotated_test(BCCD.read(root, size))


def _lenses(task: str, root: str | None, size: int | None) -> Source:
    return read_lenses(task, size)


def _auto(root: str | None, size: int | None) -> Source:
    """Rotated MNIST if it can be had, else the digits that are always there. A damaged MNIST is an error."""
    try:
        return _rotmnist(root, size)
    except MnistNotFoundError as error:
        log.warning(
            "MNIST was not found under %s, and %s: using scikit-learn's 1,797 digits instead; the run and "
            "its records are named 'digits'. (Put MNIST there, or point --data-root or EQGAN_DATA at it.)",
            data_root(root),
            error.reason,
        )
        return rotated_digits(size)


_NAMED: dict[str, Callable[[str | None, int | None], Source]] = {
    "auto": _auto,
    "rotmnist": _rotmnist,
    "mnist": _mnist,
    "c4mnist": c4_mnist,
    "digits": _digits,
    "cifar10": read_cifar10,
    PART.name: PART.read,
    "mirabest": read_mirabest,
    "bccd": _bccd,
    **{task: partial(_lenses, task) for task in TASKS},
}


def _name_of(stem: str, kind: str) -> str:
    """Make a file name safe for folders and records, and never that of a built-in set.

    >>> _name_of("my cells (2)", "npz"), _name_of("rotmnist", "npz")
    ('my-cells-2', 'rotmnist-npz')
    """
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).strip("-.") or "images"
    return f"{safe}-{kind}" if safe.lower() in _NAMED else safe


def _accepted() -> str:
    return f"{', '.join(_NAMED)}, a folder of images, an .npz file or a store"


def _unknown(source: str, path: Path) -> Exception:
    """Return the error for a source that is neither a name nor something that can be read."""
    accepted = _accepted()
    if path.is_file():
        return ValueError(f"{path}: expected {accepted}, got another kind of file. Convert it to .npz.")
    near = difflib.get_close_matches(source.lower(), _NAMED, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else " Check the spelling, or the path."
    if path.suffix.lower() == ".npz" or os.sep in source:
        return FileNotFoundError(f"--data {source}: no such file or folder; expected {accepted}.{hint}")
    return ValueError(f"--data {source}: unknown source of images; expected {accepted}.{hint}")
