"""Small stand-ins for files that are large, elsewhere, or not everyone's."""

import gzip
import hashlib
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from eqgan.data import mnist


@pytest.fixture(autouse=True)
def _own_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the cache or the `data` folder of whoever runs it."""
    monkeypatch.setenv("EQGAN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("EQGAN_NO_DOWNLOAD", "1")


def idx_bytes(array: np.ndarray) -> bytes:
    """Return a uint8 array as the content of an IDX file."""
    header = bytes([0, 0, 0x08, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def small_mnist(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Path]:
    """Write a MNIST of random `size` x `size` images, whose hashes pass for the published ones."""

    def write(
        train: int = 60, test: int = 10, size: int = 4, folder: str = "", gzipped: bool = False
    ) -> Path:
        stream = np.random.RandomState(0)
        contents = []
        for count in (train, test):
            contents += [stream.randint(0, 256, (count, size, size)), stream.randint(0, 10, count)]
        root = tmp_path / "root"
        (root / folder).mkdir(parents=True, exist_ok=True)
        hashes = {}
        for name, array in zip(mnist.MNIST_SHA256, contents):
            content = idx_bytes(array)
            hashes[name] = hashlib.sha256(content).hexdigest()
            if gzipped:
                (root / folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (root / folder / name).write_bytes(content)
        monkeypatch.setattr(mnist, "MNIST_SHA256", hashes)
        return root

    return write
