"""CIFAR-10: the published 60,000 images, or the part of them that lies under the data root as sprites.

A. Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
"""

import hashlib
import io
import logging
import os
import pickle
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from eqgan.data.download import download
from eqgan.data.imageset import ImageSet, Source
from eqgan.data.root import data_root
from eqgan.data.sprites import Sprite, SpriteSource

log = logging.getLogger("eqgan")

CIFAR10_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
}
"""Names of the six batches of the "python version" and their published MD5."""

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")

PART = SpriteSource(
    name="cifar10-17k",
    folder="cifar10",
    side=32,
    labels="labels.npz",
    splits={
        "train": Sprite(
            "train_17000.webp", 17_000, "08f02f5f6263541324ae11914528a0eb6c04ae47411413abb8f8a4e1b45ea5af"
        ),
        "test": Sprite(
            "test_10000.webp", 10_000, "8777aa4217d99d05dc6bcf4ed420943c6d021eee4af57790dad38fd6b7bbed26"
        ),
    },
)
"""1,700 training images of each class, chosen at random, and all 10,000 test images, both shuffled."""

_FOLDERS = ("", "cifar10", "CIFAR10", "cifar-10")
_EXTRACTED, _ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
_ALLOWED = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
    (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
}


def read_cifar10(root: str | None = None, size: int | None = None) -> Source:
    """Read CIFAR-10 from the standard download, or the part under the data root where only that is there.

    Looked for in this order: the folder `cifar-10-batches-py`, the archive `cifar-10-python.tar.gz` (each in
    the data root or its folder `cifar10`), the part as sprites; where nothing is there, torchvision downloads
    the first, unless the environment variable EQGAN_NO_DOWNLOAD is set. The name of the source tells which it
    was: "cifar10" or "cifar10-17k".

    Args:
        root: the data root; see `eqgan.data.root.data_root`.
        size: pixels a side of `Source.split`.

    Raises:
        FileNotFoundError: none of them is there.
        ValueError: a file is damaged, or is not what was published.
    """
    contents = find_batches(root)
    if contents is not None:
        return _standard(contents, size)
    if PART.is_there(root):
        log.warning(
            "CIFAR-10's download was not found under %s: using the part of it there, 17,000 training "
            "images; the run and its records are named %r.",
            data_root(root),
            PART.name,
        )
        return PART.read(root, size)
    if os.environ.get("EQGAN_NO_DOWNLOAD"):
        raise FileNotFoundError(_not_found(root, "downloading is switched off by EQGAN_NO_DOWNLOAD"))
    reason = download(data_root(root), "CIFAR10", [_EXTRACTED])
    contents = find_batches(root)
    if contents is None:
        raise FileNotFoundError(_not_found(root, reason))
    return _standard(contents, size)


def find_batches(root: str | None = None) -> dict[str, tuple[Path, bytes]] | None:
    """Return where each batch of the standard download was found, and its content; None if there is none.

    Raises:
        FileNotFoundError: some of the six batches are there and some are not.
        ValueError: the archive is damaged.
    """
    for folder in (data_root(root) / name for name in _FOLDERS):
        if (folder / _EXTRACTED).is_dir():
            paths = {name: folder / _EXTRACTED / name for name in CIFAR10_MD5}
            if missing := [str(path) for path in paths.values() if not path.is_file()]:
                raise FileNotFoundError(
                    f"expected six batches of CIFAR-10, got no {', '.join(missing)}. Unpack {_ARCHIVE} again."
                )
            return {name: (path, path.read_bytes()) for name, path in paths.items()}
        if (folder / _ARCHIVE).is_file():
            return _unpack(folder / _ARCHIVE)
    return None


def _unpack(path: Path) -> dict[str, tuple[Path, bytes]]:
    """Return the batches in the archive, which is not extracted to the disk."""
    try:
        with tarfile.open(path) as archive:
            found = {}
            for name in CIFAR10_MD5:
                member = archive.extractfile(f"{_EXTRACTED}/{name}")
                found[name] = (path / name, b"" if member is None else member.read())
            return found
    except (OSError, EOFError, KeyError, tarfile.TarError) as error:
        raise ValueError(
            f"{path}: expected the archive of CIFAR-10, got one that cannot be read ({error}). "
            "Delete it and fetch it again."
        ) from error


def _standard(contents: Mapping[str, tuple[Path, bytes]], size: int | None) -> Source:
    batches = {name: _batch(path, content, CIFAR10_MD5[name]) for name, (path, content) in contents.items()}
    sets = {}
    for split, names in (("train", list(CIFAR10_MD5)[:-1]), ("test", ["test_batch"])):
        images = np.concatenate([batches[name][0] for name in names])
        labels = np.concatenate([batches[name][1] for name in names])
        sets[split] = ImageSet.of(
            "cifar10", torch.from_numpy(images), torch.from_numpy(labels), None, CLASSES
        )
    return Source.of("cifar10", sets, size)


def _batch(path: Path, content: bytes, md5: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (N, 3, 32, 32) and labels int64 (N,) of one verified batch.

    Raises:
        ValueError: another content than published.
    """
    got = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if got != md5:
        raise ValueError(
            f"{path}: not the published batch of CIFAR-10: expected MD5 {md5}, got {got} of "
            f"{len(content):,} bytes. Delete it and fetch the original."
        )
    try:
        batch = _Plain(io.BytesIO(content), encoding="bytes").load()
        images = np.asarray(batch[b"data"], np.uint8).reshape(-1, 3, 32, 32)
        labels = np.asarray(batch[b"labels"], np.int64)
        if labels.shape != images.shape[:1]:
            raise ValueError(f"{len(images)} images and {len(labels)} labels")
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: expected images and labels of CIFAR-10, got something else ({error})."
        ) from error
    return images, labels


class _Plain(pickle.Unpickler):
    """Unpickles arrays and built-in containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        if name == "_reconstruct":
            return np.empty(0).__reduce__()[0]  # wherever this NumPy keeps it
        return super().find_class(module, name)


def _not_found(root: str | None, reason: str) -> str:
    looked = ", ".join(
        str(data_root(root) / "cifar10" / name) for name in (_EXTRACTED, _ARCHIVE, PART.labels)
    )
    return (
        f"--data cifar10: CIFAR-10 was not found under {data_root(root)}, and {reason}. Looked for {looked}, "
        "among others. Put it there, or point --data-root or the environment variable EQGAN_DATA at the "
        "folder that holds it."
    )
