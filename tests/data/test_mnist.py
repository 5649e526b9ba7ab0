import gzip
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
import torchvision

from eqgan.data import mnist
from eqgan.data.mnist import MnistNotFoundError, data_root, find_mnist, load_mnist


@pytest.mark.parametrize("gzipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("folder", ["", "MNIST/raw", "mnist/MNIST/raw", "mnist", "raw"])
def test_found_wherever_it_usually_lies(folder: str, gzipped: bool, small_mnist) -> None:
    root = small_mnist(folder=folder, gzipped=gzipped)
    loaded = load_mnist(root)
    assert loaded.train_images.shape == (60, 4, 4)
    assert loaded.train_labels.shape == (60,)
    assert loaded.test_images.shape == (10, 4, 4)
    assert loaded.test_labels.shape == (10,)
    assert loaded.train_images.dtype == np.uint8


def test_root_is_argument_then_environment_then_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EQGAN_DATA", "from-environment")
    assert data_root("argument") == Path("argument")
    assert data_root() == Path("from-environment")
    monkeypatch.delenv("EQGAN_DATA")
    assert data_root() == Path("data")


def test_another_content_is_refused_with_both_hashes(small_mnist) -> None:
    root = small_mnist()
    path = root / "t10k-images-idx3-ubyte"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    expected = mnist.MNIST_SHA256[path.name]
    with pytest.raises(ValueError, match=rf"t10k-images.*not the published.*{expected}.*got [0-9a-f]{{64}}"):
        load_mnist(root)


def test_truncated_file_says_so_rather_than_naming_hashes(small_mnist) -> None:
    path = small_mnist(gzipped=True) / "train-images-idx3-ubyte.gz"
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes())[:-1]))
    with pytest.raises(ValueError, match="truncated"):
        load_mnist(path.parent)


def test_absence_lists_what_was_looked_for(small_mnist, monkeypatch: pytest.MonkeyPatch) -> None:
    root = small_mnist()
    (root / "train-labels-idx1-ubyte").unlink()
    assert find_mnist(root) is None
    with pytest.raises(MnistNotFoundError) as caught:
        load_mnist(root)
    message = str(caught.value)
    assert message.startswith(f"MNIST was not found under {root}, and ")
    for told in ("train-labels-idx1-ubyte", "in MNIST/raw, mnist/MNIST/raw, mnist, raw under it"):
        assert told in message
    for remedy in ("EQGAN_NO_DOWNLOAD", "--data-root", "EQGAN_DATA", "--data digits"):
        assert remedy in message
    with pytest.raises(MnistNotFoundError, match=r"mistyped \(no such folder\)"):
        load_mnist(root / "mistyped")


def test_download_puts_whole_files_under_the_root(
    small_mnist, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin, root = small_mnist(), tmp_path / "fresh"

    def fetch(folder: str, download: bool) -> None:
        assert download
        assert socket.getdefaulttimeout() == 10
        shutil.copytree(origin, Path(folder) / "MNIST" / "raw")

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    monkeypatch.delenv("EQGAN_NO_DOWNLOAD")
    before = socket.getdefaulttimeout()
    assert len(load_mnist(root).train_images) == 60
    assert socket.getdefaulttimeout() == before
    assert [path.name for path in root.iterdir()] == ["MNIST"]
    with pytest.raises(MnistNotFoundError, match="switched off"):
        load_mnist(tmp_path / "other", download=False)


@pytest.mark.parametrize("error", [OSError("no route"), RuntimeError("Error\n downloading:\nno")])
def test_failed_download_leaves_nothing_half_done(
    error: Exception, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = " ".join(str(error).split())

    def fetch(folder: str, download: bool) -> None:
        (Path(folder) / "train-images-idx3-ubyte.gz").write_bytes(b"half")
        raise error

    monkeypatch.setattr(torchvision.datasets, "MNIST", fetch)
    monkeypatch.delenv("EQGAN_NO_DOWNLOAD")
    with pytest.raises(MnistNotFoundError, match=rf"failed \({reason}\).*Looked for") as caught:
        load_mnist(tmp_path / "fresh")
    assert "\n" not in caught.value.reason  # it goes into the one line of --data auto
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "kept").mkdir()
    with pytest.raises(MnistNotFoundError):
        load_mnist(tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []
