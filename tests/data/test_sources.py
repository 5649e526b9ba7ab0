import logging
from pathlib import Path

import numpy as np
import pytest
import torch

from eqgan.data import rotmnist
from eqgan.data.digits import DIGITS_SHA256, enlarge
from eqgan.data.mnist import MnistNotFoundError, load_mnist
from eqgan.data.rotation import rotate_uint8
from eqgan.data.rotmnist import content_sha256, generate
from eqgan.data.sources import load_images, open_source


def test_digits_are_the_same_everywhere() -> None:
    source = open_source("digits")
    assert source.sha256 == DIGITS_SHA256
    train, test = source.split("train"), source.split("test")
    assert (len(train), len(test)) == (1437, 360)
    assert train.images.shape[1:] == (1, 28, 28)
    assert train.images.dtype == torch.uint8
    assert train.labels.bincount().min() > 100
    assert train.class_names == tuple("0123456789")
    assert 0 <= train.angles.min() < train.angles.max() < 360
    for corner in (train.images[..., 0, 0], train.images[..., -1, 0]):
        assert not corner.any()  # black: nothing is cut off


def test_enlarging_agrees_with_interpolation_in_floats() -> None:
    """Keys' cubic, written as a sum over the four samples around instead of a matrix of integers."""
    image = np.random.RandomState(0).randint(0, 17, (8, 8))

    def at(values: np.ndarray, position: float) -> np.ndarray:
        total = np.zeros(values.shape[1:])
        base = int(np.floor(position))
        t = position - base
        weights = [
            (-(t**3) + 2 * t**2 - t) / 2,
            (3 * t**3 - 5 * t**2 + 2) / 2,
            (-3 * t**3 + 4 * t**2 + t) / 2,
            (t**3 - t**2) / 2,
        ]
        for offset, weight in zip(range(-1, 3), weights):
            if 0 <= base + offset < len(values):
                total = total + weight * values[base + offset]
        return total

    positions = (np.arange(20) + 0.5) * 8 / 20 - 0.5
    rows = np.stack([at(image.astype(float), position) for position in positions])
    box = np.stack([at(rows.T, position) for position in positions]).T
    expected = np.pad(np.clip(box * 255 / 16, 0, 255), 4)
    assert np.abs(enlarge(image[None])[0] - expected).max() < 1.5


def test_mnist_is_upright(small_mnist) -> None:
    root = small_mnist()
    source, mnist = open_source("mnist", str(root)), load_mnist(root)
    assert source.splits == ("train", "test")
    assert np.array_equal(source.split("test").images[:, 0], mnist.test_images)
    assert source.split("train").labels.tolist() == mnist.train_labels.tolist()
    assert source.split("train").angles is None
    upright, turned = source.test_sets().values()
    assert list(source.test_sets()) == ["mnist", "mnist-rotated"]
    assert turned.labels.tolist() == upright.labels.tolist()
    expected = rotate_uint8(upright.images[:, 0].numpy(), turned.angles.numpy())
    assert np.array_equal(turned.images[:, 0], expected)


@pytest.mark.parametrize("source", ["rotmnist", "auto"])
def test_rotmnist(
    source: str, small_mnist, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = small_mnist(60_000, 10_000, size=2)
    expected = content_sha256(*generate(load_mnist(root)))
    for module in ("rotmnist", "sources"):
        monkeypatch.setattr(f"eqgan.data.{module}.ROTMNIST_SHA256", expected)
    opened = open_source(source, str(root))
    assert (opened.name, opened.sha256) == ("rotmnist", expected)
    sizes = {"train": 12_000, "validation": 2_000, "test": 50_000, "extra": 8_000}
    assert {split: len(opened.split(split)) for split in opened.splits} == sizes
    train = opened.split("train")
    assert train.images.shape == (12_000, 1, 2, 2)
    assert train.angles.tolist() == rotmnist.permutation_and_angles(70_000)[1][:12_000].tolist()
    assert caplog.records == []


def test_auto_falls_back_with_one_line_and_the_name_of_what_it_uses(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "eqgan"):
        images = load_images("auto", str(tmp_path))
    assert images.name == "digits"
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert "\n" not in line
    assert f"MNIST was not found under {tmp_path}" in line
    assert "named 'digits'" in line


@pytest.mark.parametrize("source", ["rotmnist", "mnist"])
def test_named_sets_never_fall_back(source: str, tmp_path: Path) -> None:
    with pytest.raises(MnistNotFoundError, match="Looked for"):
        load_images(source, str(tmp_path))


def test_auto_does_not_hide_a_damaged_mnist(small_mnist) -> None:
    root = small_mnist()
    (root / "t10k-labels-idx1-ubyte").write_bytes(b"damaged")
    with pytest.raises(ValueError, match="not an IDX file"):
        load_images("auto", str(root))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (
            "rotmnits",
            ValueError,
            "unknown source.*auto, rotmnist, mnist, c4mnist, digits.*a folder.*Did you mean 'rotmnist'",
        ),
        ("Digits", ValueError, "Did you mean 'digits'"),
        ("zebra", ValueError, "a folder of images, an .npz file or a store.*Check the spelling, or the path"),
        ("no/such/folder", FileNotFoundError, "no such file or folder"),
        ("none.npz", FileNotFoundError, "no such file or folder"),
    ],
)
def test_unknown_source(source: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"--data {source}: .*{message}"):
        load_images(source)


@pytest.mark.parametrize("source", ["", " "])
def test_the_path_of_nothing_is_not_the_working_directory(source: str) -> None:
    with pytest.raises(
        ValueError, match=r"--data: expected auto, rotmnist, .*a folder of images.*, got nothing"
    ):
        load_images(source)


def test_another_kind_of_file(tmp_path: Path) -> None:
    path = tmp_path / "data.csv"
    path.write_text("1,2")
    with pytest.raises(ValueError, match=r"data\.csv: expected .*got another kind of file"):
        load_images(str(path))


@pytest.mark.parametrize("size", [0, -3, 5000])
def test_impossible_size(size: int) -> None:
    with pytest.raises(ValueError, match=f"--size: expected 1 to 4096 pixels, got {size}"):
        load_images("digits", size=size)


def test_size_and_missing_split_of_a_named_set() -> None:
    assert load_images("digits", size=14, split="test").images.shape == (360, 1, 14, 14)
    with pytest.raises(ValueError, match="digits has no extra split, expected one of: train, test"):
        load_images("digits", split="extra")
