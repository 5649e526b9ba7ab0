import hashlib
import logging
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torchvision

from eqgan.data import cifar10
from eqgan.data.cifar10 import CIFAR10_MD5
from eqgan.data.imageset import Source
from eqgan.data.sources import open_source


def test_hashes_are_the_published_ones() -> None:
    published = torchvision.datasets.CIFAR10
    assert dict([*published.train_list, *published.test_list]) == CIFAR10_MD5
    assert published.base_folder == cifar10._EXTRACTED
    assert published.filename == cifar10._ARCHIVE


def _batch(number: int, count: int = 3) -> dict[bytes, object]:
    data = np.random.RandomState(number).randint(0, 256, (count, 3072)).astype(np.uint8)
    return {b"data": data, b"labels": [(number + i) % 10 for i in range(count)], b"batch_label": b"x"}


@pytest.fixture
def standard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The extracted folder with three images a batch, whose hashes pass for the published ones."""
    folder = tmp_path / "root" / "cifar10" / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    hashes = {}
    for number, name in enumerate(CIFAR10_MD5):
        content = pickle.dumps(_batch(number), protocol=2)
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(cifar10, "CIFAR10_MD5", hashes)
    return folder


def _check(root: Path) -> None:
    source = open_source("cifar10", str(root))
    train, test = source.split("train"), source.split("test")
    assert (source.name, len(train), len(test)) == ("cifar10", 15, 3)
    images = np.concatenate([_batch(number)[b"data"] for number in range(5)]).reshape(-1, 3, 32, 32)
    assert np.array_equal(train.images, images)
    assert train.labels.tolist() == [(number + i) % 10 for number in range(5) for i in range(3)]
    assert test.labels.tolist() == [5, 6, 7]
    assert test.class_names[5:] == ("dog", "frog", "horse", "ship", "truck")


def test_extracted_folder(standard: Path) -> None:
    _check(standard.parent.parent)
    _check(standard.parent)


def _archive(standard: Path) -> Path:
    path = standard.parent / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        archive.add(standard, standard.name)
    shutil.rmtree(standard)
    return path


def test_archive(standard: Path) -> None:
    _archive(standard)
    _check(standard.parent.parent)
    assert not standard.exists()


def test_truncated_archive(standard: Path) -> None:
    path = _archive(standard)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"tar\.gz: expected the archive of CIFAR-10, got one that cannot"):
        open_source("cifar10", str(standard.parent))


def test_archive_without_a_batch(standard: Path) -> None:
    (standard / "data_batch_3").unlink()
    path = _archive(standard)
    with pytest.raises(ValueError, match=rf"{path}: expected the archive of CIFAR-10.*data_batch_3"):
        open_source("cifar10", str(standard.parent))


def test_truncated_batch(standard: Path) -> None:
    path = standard / "data_batch_2"
    path.write_bytes(path.read_bytes()[:1000])
    expected = cifar10.CIFAR10_MD5[path.name]
    with pytest.raises(
        ValueError, match=rf"{path}: not the published.*MD5 {expected}, got .* of 1,000 bytes"
    ):
        open_source("cifar10", str(standard.parent))


def test_missing_batch(standard: Path) -> None:
    (standard / "test_batch").unlink()
    with pytest.raises(FileNotFoundError, match=r"six batches of CIFAR-10, got no \S*test_batch"):
        open_source("cifar10", str(standard.parent))


class _Evil:
    def __reduce__(self) -> tuple[object, ...]:
        return os.getcwd, ()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({b"data": _Evil()}), "is not allowed"),
        (pickle.dumps({b"labels": [1]}), "data"),
        (pickle.dumps({b"data": np.zeros(7, np.uint8), b"labels": [1]}), "reshape"),
        (pickle.dumps({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}), "2 images and 1 labels"),
    ],
    ids=["code", "no images", "shape", "count"],
)
def test_a_batch_of_something_else(
    content: bytes, message: str, standard: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (standard / "data_batch_1").write_bytes(content)
    monkeypatch.setitem(cifar10.CIFAR10_MD5, "data_batch_1", hashlib.md5(content).hexdigest())
    with pytest.raises(ValueError, match=rf"expected images and labels of CIFAR-10, got .*{message}"):
        open_source("cifar10", str(standard.parent))


def test_batches_pickled_by_any_numpy_are_read(standard: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The published files name numpy.core.multiarray, where NumPy 2 keeps nothing any more."""
    content = (standard / "test_batch").read_bytes()
    for core in (b"numpy._core.multiarray", b"numpy.core.multiarray"):
        other = content.replace(b"numpy._core.multiarray", b"numpy.core.multiarray").replace(
            b"numpy.core.multiarray", core
        )
        (standard / "test_batch").write_bytes(other)
        monkeypatch.setitem(cifar10.CIFAR10_MD5, "test_batch", hashlib.md5(other).hexdigest())
        _check(standard.parent)


def test_absence_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        open_source("cifar10", str(tmp_path))
    for part in ("--data cifar10", str(tmp_path), "EQGAN_NO_DOWNLOAD", "tar.gz", "--data-root", "EQGAN_DATA"):
        assert part in str(caught.value)


def test_download(standard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(folder: str, download: bool) -> None:
        assert download
        shutil.copytree(standard, Path(folder) / standard.name)

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    monkeypatch.delenv("EQGAN_NO_DOWNLOAD")
    _check(tmp_path / "fresh")
    assert [path.name for path in (tmp_path / "fresh").iterdir()] == [standard.name]


def test_failed_download_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(folder: str, download: bool) -> None:
        raise OSError("no route")

    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fetch)
    monkeypatch.delenv("EQGAN_NO_DOWNLOAD")
    with pytest.raises(FileNotFoundError, match=r"the download by torchvision failed \(no route\)"):
        open_source("cifar10", str(tmp_path / "fresh"))
    assert not (tmp_path / "fresh").exists()


def test_the_part_is_used_with_one_line_and_its_own_name(
    standard: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    asked = []
    monkeypatch.setattr(cifar10.SpriteSource, "is_there", lambda self, root: True)
    monkeypatch.setattr(
        cifar10.SpriteSource, "read", lambda self, *_: asked.append(self.name) or Source.of(self.name, {})
    )
    with caplog.at_level(logging.WARNING, "eqgan"):
        open_source("cifar10", str(standard.parent))
        assert asked == []  # the whole set goes first
        shutil.rmtree(standard)
        open_source("cifar10", str(standard.parent))
    assert asked == ["cifar10-17k"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "named 'cifar10-17k'" in line
