import errno
import logging
import os
from pathlib import Path

import numpy as np
import pytest

from eqgan.data import rotmnist
from eqgan.data.mnist import MnistNotFoundError, find_mnist, load_mnist
from eqgan.data.rotation import rotate_uint8
from eqgan.data.rotmnist import (
    ROTMNIST_SHA256,
    content_sha256,
    generate,
    permutation_and_angles,
    rotated_mnist,
)

SPLITS = {"train": 12_000, "validation": 2_000, "test": 50_000, "extra": 8_000}


@pytest.fixture
def root(small_mnist, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A MNIST of 70,000 images of 3 x 3 pixels, and the hash of what becomes of it."""
    folder = small_mnist(60_000, 10_000, size=3)
    monkeypatch.setattr(rotmnist, "ROTMNIST_SHA256", content_sha256(*generate(load_mnist(folder))))
    return folder


def _cache(tmp_path: Path) -> Path:
    (path,) = (tmp_path / "cache").glob("rotmnist-*.npz")
    return path


def _same(first: rotmnist.RotatedMnist, second: rotmnist.RotatedMnist) -> bool:
    return all(
        np.array_equal(getattr(getattr(first, split), part), getattr(getattr(second, split), part))
        for split in SPLITS
        for part in ("images", "labels", "angles")
    )


def test_permutation_and_angles_are_frozen() -> None:
    order, angles = permutation_and_angles(70_000)
    assert order[-3:].tolist() == [43705, 44943, 52301]
    assert angles[-1] == 114.76254425235813
    assert sorted(order) == list(range(70_000))
    assert angles.min() >= 0
    assert angles.max() < 360


def test_splits_are_the_digits_they_should_be(root: Path) -> None:
    mnist, data = load_mnist(root), rotated_mnist(root)
    images = np.concatenate([mnist.train_images, mnist.test_images])
    labels = np.concatenate([mnist.train_labels, mnist.test_labels])
    order, angles = permutation_and_angles(70_000)
    start = {"train": 0, "validation": 10_000, "test": 12_000, "extra": 62_000}
    for name, count in SPLITS.items():
        split = getattr(data, name)
        part = slice(start[name], start[name] + count)
        assert split.images.shape == (count, 3, 3)
        assert split.images.dtype == split.labels.dtype == np.uint8
        assert np.array_equal(split.images, rotate_uint8(images[order[part]], angles[part]))
        assert np.array_equal(split.labels, labels[order[part]])
        assert np.array_equal(split.angles, angles[part])


def test_second_time_comes_from_the_cache(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rotated_mnist(root)
    assert _cache(tmp_path).is_file()
    monkeypatch.setattr(rotmnist, "generate", lambda _: pytest.fail("generated again"))
    assert _same(first, rotated_mnist(root))


@pytest.mark.parametrize("damage", ["truncated", "one-bit", "not-a-zip", "other-content", "empty"])
def test_damaged_cache_is_made_again_with_one_line(
    damage: str, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = rotated_mnist(root)
    path = _cache(tmp_path)
    content = path.read_bytes()
    if damage == "other-content":
        np.savez(path, images=np.zeros((70_000, 3, 3), np.uint8), labels=np.zeros(70_000, np.uint8))
    else:
        flipped = bytearray(content)
        flipped[5_000] ^= 4
        broken = {"truncated": content[:9_000], "one-bit": flipped, "not-a-zip": b"hello", "empty": b""}
        path.write_bytes(broken[damage])
    with caplog.at_level(logging.WARNING, "eqgan"):
        assert _same(first, rotated_mnist(root))
    assert len(caplog.records) == 1
    assert "making it again" in caplog.text
    assert path.read_bytes() == content


def test_full_disk_costs_the_cache_and_not_the_run(
    root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = rotated_mnist(root)
    path = _cache(tmp_path)
    path.write_bytes(b"earlier")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with caplog.at_level(logging.WARNING, "eqgan"):
        assert _same(first, rotated_mnist(root))
    assert "not cached" in caplog.text
    assert "No space left" in caplog.text
    assert path.read_bytes() == b"earlier"
    assert list(path.parent.iterdir()) == [path]


def test_other_result_of_the_rotation_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rotmnist, "ROTMNIST_SHA256", "0" * 64)
    with pytest.raises(ValueError, match=r"SHA-256 [0-9a-f]{64}, expected 0{64}"):
        rotated_mnist(root)


def test_never_without_mnist(tmp_path: Path, root: Path) -> None:
    rotated_mnist(root)  # now in the cache, which decides nothing
    with pytest.raises(MnistNotFoundError, match="Looked for"):
        rotated_mnist(tmp_path / "empty")


def test_published_hash_on_the_whole_set() -> None:
    if find_mnist() is None:
        pytest.skip("MNIST is not under the data root (EQGAN_DATA, else data): its hash cannot be checked")
    data = rotated_mnist()
    images = np.concatenate([data.train.images, data.test.images, data.extra.images])
    labels = np.concatenate([data.train.labels, data.test.labels, data.extra.labels])
    assert content_sha256(images, labels) == ROTMNIST_SHA256
    assert images.shape == (70_000, 28, 28)
    assert np.bincount(data.train.labels).tolist() == [
        1161, 1350, 1226, 1209, 1151, 1091, 1186, 1273, 1174, 1179,
    ]  # fmt: skip
