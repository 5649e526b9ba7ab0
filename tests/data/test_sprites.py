"""CIFAR-10's part and the blood cells share one reader; so do these tests, on a small stand-in."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqgan.data.bccd import BCCD
from eqgan.data.cifar10 import PART
from eqgan.data.imageset import ImageSet
from eqgan.data.sources import open_source
from eqgan.data.sprites import Sprite, SpriteSource, read_sprite

SIDE, COLUMNS = 6, 4
NAMES = ("round", "flat")


def _tiles(count: int) -> np.ndarray:
    return np.random.RandomState(count).randint(0, 256, (count, 3, SIDE, SIDE)).astype(np.uint8)


def _write(path: Path, tiles: np.ndarray) -> None:
    """Write tiles as one picture, pixel by pixel from their definition."""
    rows = -(-len(tiles) // COLUMNS)
    picture = np.zeros((rows * SIDE, COLUMNS * SIDE, 3), np.uint8)
    for i, tile in enumerate(tiles):
        for channel in range(3):
            top, left = i // COLUMNS * SIDE, i % COLUMNS * SIDE
            picture[top : top + SIDE, left : left + SIDE, channel] = tile[channel]
    Image.fromarray(picture).save(path, lossless=True)


@pytest.fixture
def cells(tmp_path: Path) -> SpriteSource:
    """Ten training and four test images, and the source that expects them."""
    folder = tmp_path / "cells"
    folder.mkdir()
    labels, sprites = {"class_names": np.array(NAMES)}, {}
    for split, count in (("train", 10), ("test", 4)):
        tiles, classes = _tiles(count), np.arange(count) % 2
        _write(folder / f"{split}.webp", tiles)
        labels[f"y_{split}"] = classes.astype(np.uint8)
        images = ImageSet.of("cells", torch.from_numpy(tiles), torch.from_numpy(classes), None, NAMES)
        sprites[split] = Sprite(f"{split}.webp", count, images.sha256)
    np.savez(folder / "labels.npz", **labels)
    return SpriteSource("cells", "cells", SIDE, "labels.npz", sprites)


def test_tiles_and_labels(cells: SpriteSource, tmp_path: Path) -> None:
    source = cells.read(str(tmp_path))
    assert (source.name, source.splits) == ("cells", ("train", "test"))
    assert np.array_equal(source.split("train").images, _tiles(10))
    assert np.array_equal(source.split("test").images, _tiles(4))
    assert source.split("train").labels.tolist() == [0, 1] * 5
    assert source.split("train").class_names == NAMES
    assert cells.read(str(tmp_path), 3).split("test").images.shape == (4, 3, 3, 3)
    assert cells.is_there(str(tmp_path))


@pytest.mark.parametrize("name", ["train.webp", "labels.npz"])
def test_missing_file(name: str, cells: SpriteSource, tmp_path: Path) -> None:
    (tmp_path / "cells" / name).unlink()
    assert not cells.is_there(str(tmp_path))
    with pytest.raises(
        FileNotFoundError, match=rf"--data cells: expected \S*{name}, got no such.*EQGAN_DATA"
    ):
        cells.read(str(tmp_path))


@pytest.mark.parametrize("name", ["test.webp", "labels.npz"])
def test_truncated_file(name: str, cells: SpriteSource, tmp_path: Path) -> None:
    path = tmp_path / "cells" / name
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"{path}: expected .* that cannot be read"):
        cells.read(str(tmp_path))


def test_wrong_sizes(cells: SpriteSource, tmp_path: Path) -> None:
    path = tmp_path / "cells" / "test.webp"
    _write(path, _tiles(4)[:, :, :, :5].repeat(2, axis=3)[:, :, :, :SIDE])
    Image.open(path).crop((0, 0, 4 * SIDE - 1, SIDE)).save(path, lossless=True)
    with pytest.raises(ValueError, match=r"at least 4 tiles of 6 x 6 pixels, got a picture of 23 x 6"):
        cells.read(str(tmp_path))
    with pytest.raises(ValueError, match=r"at least 13 tiles"):
        read_sprite(tmp_path / "cells" / "train.webp", 13, SIDE)


def test_another_content_is_refused_with_both_hashes(cells: SpriteSource, tmp_path: Path) -> None:
    tiles = _tiles(10)
    tiles[3, 0, 0, 0] ^= 1
    _write(tmp_path / "cells" / "train.webp", tiles)
    expected = cells.splits["train"].sha256
    with pytest.raises(ValueError, match=rf"SHA-256 {expected}, got [0-9a-f]{{64}}: damaged, or another set"):
        cells.read(str(tmp_path))


@pytest.mark.parametrize(
    ("labels", "got"),
    [
        ({"y_train": np.zeros(10, int)}, "no such array"),
        ({"y_train": np.zeros(10, int), "y_test": np.zeros(3, int)}, r"int64 of shape \(3,\)"),
        ({"y_train": np.zeros(10, int), "y_test": np.zeros(4)}, r"float64 of shape \(4,\)"),
    ],
)
def test_wrong_labels(labels: dict[str, np.ndarray], got: str, cells: SpriteSource, tmp_path: Path) -> None:
    np.savez(tmp_path / "cells" / "labels.npz", class_names=np.array(NAMES), **labels)
    first = replace(cells.splits["train"], sha256=_hash_of(np.zeros(10, int)))
    source = replace(cells, splits={**cells.splits, "train": first})
    with pytest.raises(ValueError, match=rf"expected 4 integer labels in 'y_test', got {got}"):
        source.read(str(tmp_path))


def _hash_of(labels: np.ndarray) -> str:
    return ImageSet.of("cells", torch.from_numpy(_tiles(10)), torch.from_numpy(labels), None, NAMES).sha256


@pytest.mark.parametrize("name", ["bccd", "cifar10-17k"])
def test_named_sets_say_where_they_are_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"--data {name}: expected {re.escape(str(tmp_path))}"):
        open_source(name, str(tmp_path))


REAL = os.environ.get("EQGAN_DATA")


@pytest.mark.parametrize("source", [BCCD, PART], ids=lambda s: s.name)
def test_the_real_ones(source: SpriteSource) -> None:
    if not source.is_there(REAL):
        pytest.skip(f"{source.name} is not under EQGAN_DATA")
    opened = open_source(source.name, REAL)
    sizes = {split: len(images) for split, images in opened.sets.items()}
    assert sizes == {split: sprite.count for split, sprite in source.splits.items()}
    if source is PART:
        assert opened.split("train").labels.bincount().tolist() == [1700] * 10
        assert opened.split("test").labels.bincount().tolist() == [1000] * 10
        mean = opened.split("train").images.double().mean((0, 2, 3)) / 255
        published = torch.tensor([0.4914, 0.4822, 0.4465], dtype=torch.float64)  # of all 50,000
        assert torch.allclose(mean, published, atol=2e-3)
    else:
        assert list(opened.test_sets()) == ["bccd", "bccd-rotated"]
