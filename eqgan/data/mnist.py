"""MNIST: where its four files are, whether they are what was published, and how to get them."""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from eqgan.data.download import download as fetch
from eqgan.data.idx import parse_idx, read_bytes
from eqgan.data.root import data_root

MNIST_SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
"""Names of the four files and the SHA-256 of their uncompressed content."""

_FOLDERS = ("", "MNIST/raw", "mnist/MNIST/raw", "mnist", "raw")


class MnistNotFoundError(FileNotFoundError):
    """MNIST is neither under the data root nor to be downloaded; `reason` says in a few words why not."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True)
class Mnist:
    """The digits as published: images uint8 (N, 28, 28), labels uint8 (N,), 60,000 train and 10,000 test."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def candidates(root: str | os.PathLike[str] | None = None) -> dict[str, list[Path]]:
    """Return, for each of the four files, every path where it is looked for, in order."""
    folders = [data_root(root) / folder for folder in _FOLDERS]
    return {
        name: [folder / f"{name}{suffix}" for folder in folders for suffix in ("", ".gz")]
        for name in MNIST_SHA256
    }


def find_mnist(root: str | os.PathLike[str] | None = None) -> dict[str, Path] | None:
    """Return the paths of the four MNIST files (plain or gzipped) under the data root, or None.

    Only their existence is looked at: `load_mnist` reads and verifies them.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as empty:
    ...     print(find_mnist(empty))
    None
    """
    found = {name: next(filter(Path.is_file, paths), None) for name, paths in candidates(root).items()}
    if None in found.values():
        return None
    return {name: path for name, path in found.items() if path is not None}


def ensure_mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> dict[str, Path]:
    """Return the paths of the four MNIST files, downloading them under the data root if they are not there.

    Args:
        root: the data root; see `eqgan.data.root.data_root`.
        download: whether to try. The environment variable EQGAN_NO_DOWNLOAD, when set, forbids it.

    Raises:
        MnistNotFoundError: neither found nor downloaded; says where it was looked for and what to do.
    """
    found = find_mnist(root)
    if found is not None:
        return found
    if not download or os.environ.get("EQGAN_NO_DOWNLOAD"):
        reason = "downloading is switched off" + (" by EQGAN_NO_DOWNLOAD" if download else "")
    else:
        reason = _download(data_root(root))
        found = find_mnist(root)
        if found is not None:
            return found
    raise MnistNotFoundError(_not_found(root, reason), reason)


def load_mnist(root: str | os.PathLike[str] | None = None, download: bool = True) -> Mnist:
    """Read MNIST and verify it against the published content.

    Args:
        root: the data root; see `eqgan.data.root.data_root`.
        download: whether to try to download files that are not there.

    Raises:
        FileNotFoundError: the files are not there and could not be downloaded.
        ValueError: a file is damaged, or is not the published MNIST.
    """
    paths = ensure_mnist(root, download)
    return Mnist(*(read_verified(paths[name], digest) for name, digest in MNIST_SHA256.items()))


def read_verified(path: Path, sha256: str) -> np.ndarray:
    """Read an IDX file and check the SHA-256 of its uncompressed content.

    Raises:
        ValueError: the content is damaged or another one; names the hash expected and got.
    """
    content = read_bytes(path)
    array = parse_idx(content, path)
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise ValueError(
            f"{path}: not the published MNIST file: expected SHA-256 {sha256} of the uncompressed content, "
            f"got {got}. Delete it and fetch the original; for another set of images use --data FOLDER or "
            "--data FILE.npz."
        )
    return array


def _download(root: Path) -> str:
    """Try to download MNIST to `root`/MNIST/raw; return what went wrong, or an empty string."""
    return fetch(root, "MNIST", [f"MNIST/raw/{name}" for name in MNIST_SHA256])


def _not_found(root: str | os.PathLike[str] | None, reason: str) -> str:
    where = data_root(root)
    return (
        f"MNIST was not found under {where}{'' if where.is_dir() else ' (no such folder)'}, and {reason}. "
        f"Looked for {', '.join(MNIST_SHA256)}, plain or with .gz, there and in {', '.join(_FOLDERS[1:])} "
        "under it. Put the four files there, point --data-root or the environment variable EQGAN_DATA at the "
        "folder that holds them, or use --data digits, which needs no files."
    )
