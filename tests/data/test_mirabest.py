import os
from pathlib import Path

import numpy as np
import pytest
import torch

from eqgan.data import mirabest
from eqgan.data.imageset import ImageSet
from eqgan.data.mirabest import BLANK
from eqgan.data.module import ImageData
from eqgan.data.sources import open_source


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve training images, two of them blank, and four test images."""
    stream = np.random.RandomState(0)
    images = stream.randint(1, 256, (16, 10, 10)).astype(np.uint8)
    images[[3, 7]] = 0
    labels = (np.arange(16) % 2).astype(np.uint8)
    (tmp_path / "mirabest").mkdir()
    arrays = {"x_train": images[:12], "y_train": labels[:12], "x_test": images[12:], "y_test": labels[12:]}
    np.savez(tmp_path / "mirabest" / "mirabest_confident.npz", **arrays)
    kept = {"train": [0, 1, 2, 4, 5, 6, 8, 9, 10, 11], "test": [12, 13, 14, 15]}
    for split, rows in kept.items():
        pixels, classes = torch.from_numpy(images[rows])[:, None], torch.from_numpy(labels[rows]).long()
        monkeypatch.setitem(mirabest.MIRABEST_SHA256, split, ImageSet.of("m", pixels, classes).sha256)
    return tmp_path


def test_blank_images_are_left_out(root: Path) -> None:
    source = open_source("mirabest", str(root))
    assert [len(source.split(split)) for split in ("train", "test")] == [10, 4]
    assert source.split("train").images.flatten(1).amax(1).min() > 0
    assert source.split("train").labels.tolist() == [0, 1, 0, 0, 1, 0, 0, 1, 0, 1]
    assert source.split("train").class_names == ("FRI", "FRII")
    assert list(source.test_sets()) == ["mirabest", "mirabest-rotated"]


def test_size_and_stratified_validation(root: Path) -> None:
    data = ImageData("mirabest", str(root), size=5, batch_size=2, validation_fraction=0.25)
    data.setup()
    assert data.image_shape == (1, 5, 5)
    assert data.validation.labels.bincount().tolist() == [2, 1]  # of 6 and 4
    assert all(images.images.shape[1:] == (1, 5, 5) for images in data.test_sets().values())


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(
        FileNotFoundError, match=r"--data mirabest: expected \S*mirabest_confident.npz or .*got no"
    ):
        open_source("mirabest", str(tmp_path))


def test_truncated(root: Path) -> None:
    path = root / "mirabest" / "mirabest_confident.npz"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=rf"{path}: expected an .npz file of plain arrays"):
        open_source("mirabest", str(root))


def test_another_content(root: Path) -> None:
    path = root / "mirabest" / "mirabest_confident.npz"
    arrays = dict(np.load(path))
    arrays["x_test"][0, 0, 0] ^= 1
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=rf"{path}: expected images and labels with SHA-256 \w+, got \w+"):
        open_source("mirabest", str(root))


@pytest.mark.parametrize("wrong", [{"y_test": np.zeros(3)}, {"x_test": np.zeros((4, 3))}, {"x_train": None}])
def test_wrong_shapes(wrong: dict[str, np.ndarray | None], root: Path) -> None:
    path = root / "mirabest" / "mirabest_confident.npz"
    arrays = {key: array for key, array in {**np.load(path), **wrong}.items() if array is not None}
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"expected images \(N, height, width\) in 'x_.*' and N labels.*got"):
        open_source("mirabest", str(root))


def test_the_real_ones() -> None:
    path = Path(os.environ.get("EQGAN_DATA", "")) / "mirabest" / "mirabest_confident.npz"
    if not path.is_file():
        pytest.skip("MiraBest is not under EQGAN_DATA")
    source = open_source("mirabest")
    assert source.split("train").labels.bincount().tolist() == [310, 388]
    assert source.split("test").labels.bincount().tolist() == [39, 49]
    blank = ~np.load(path)["x_train"].any(axis=(1, 2))
    assert tuple(np.flatnonzero(blank)) == BLANK
