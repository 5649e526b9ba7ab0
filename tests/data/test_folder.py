from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eqgan.data.folder import SUFFIXES
from eqgan.data.sources import load_images, open_source

STREAM = np.random.RandomState(0)
GREY = STREAM.randint(0, 256, (6, 6)).astype(np.uint8)
RGB = STREAM.randint(0, 256, (6, 6, 3)).astype(np.uint8)


def _save(path: Path, pixels: np.ndarray = GREY) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.mark.parametrize("suffix", [*SUFFIXES, ".PNG"])
def test_every_kind_of_file(suffix: str, tmp_path: Path) -> None:
    _save(tmp_path / f"a{suffix}", np.full((6, 6), 77, np.uint8))
    (tmp_path / "notes.txt").write_text("passed over")
    images = load_images(str(tmp_path)).images
    assert images.shape == (1, 1, 6, 6)
    assert np.abs(images.numpy().astype(int) - 77).max() <= 1


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    folder = tmp_path / "my cells"
    _save(folder / "red" / "deep" / "1.png")
    _save(folder / "blue" / "2.png")
    _save(folder / ".hidden" / "3.png")
    images = load_images(str(folder))
    assert images.name == "my-cells"
    assert images.class_names == ("blue", "red")
    assert images.labels.tolist() == [0, 1]
    assert images.angles is None


def test_without_sub_folders_there_are_no_labels(tmp_path: Path) -> None:
    _save(tmp_path / "2.png", 255 - GREY)
    _save(tmp_path / "1.png", GREY)
    images = load_images(str(tmp_path))
    assert images.labels is None
    assert images.class_names == ()
    assert np.array_equal(images.images[0, 0], GREY)  # in the order of the names


def test_loose_images_beside_classes(tmp_path: Path) -> None:
    loose, inside = _save(tmp_path / "1.png"), _save(tmp_path / "a" / "2.png")
    with pytest.raises(ValueError, match=f"got {loose} and {inside}"):
        load_images(str(tmp_path))


def test_train_and_test_folders_are_splits(tmp_path: Path) -> None:
    _save(tmp_path / "train" / "a" / "1.png")
    _save(tmp_path / "train" / "b" / "2.png")
    _save(tmp_path / "test" / "b" / "3.png", RGB)
    source = open_source(str(tmp_path))
    assert source.splits == ("train", "test")
    assert source.split("train").labels.tolist() == [0, 1]
    assert source.split("test").labels.tolist() == [1]
    assert source.split("train").images.shape[1] == source.split("test").images.shape[1] == 3


def test_only_train_and_something_else_are_classes(tmp_path: Path) -> None:
    _save(tmp_path / "train" / "1.png")
    _save(tmp_path / "tram" / "2.png")
    assert load_images(str(tmp_path)).class_names == ("train", "tram")


def test_no_test_split(tmp_path: Path) -> None:
    _save(tmp_path / "1.png")
    with pytest.raises(ValueError, match="has no test split, expected one of: train"):
        load_images(str(tmp_path), split="test")


def test_grey_if_all_are_else_rgb(tmp_path: Path) -> None:
    _save(tmp_path / "1.png", GREY)
    _save(tmp_path / "2.png", np.repeat(GREY[..., None], 3, axis=2))  # grey in an RGB file
    assert load_images(str(tmp_path)).images.shape == (2, 1, 6, 6)
    _save(tmp_path / "3.png", RGB)
    images = load_images(str(tmp_path)).images
    assert images.shape == (3, 3, 6, 6)
    assert np.array_equal(images[2], RGB.transpose(2, 0, 1))
    assert np.array_equal(images[0], np.stack([GREY] * 3))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    _save(tmp_path / "1.png", GREY.astype(np.uint16) * 257)
    assert np.array_equal(load_images(str(tmp_path)).images[0, 0], GREY)


def test_floating_point_files_are_refused(tmp_path: Path) -> None:
    path = _save(tmp_path / "1.tif", GREY.astype(np.float32))
    with pytest.raises(ValueError, match=rf"{path}: expected 8 or 16 bits"):
        load_images(str(tmp_path))


def test_transparent_is_black_and_palettes_are_colours(tmp_path: Path) -> None:
    pixels = np.dstack([RGB, np.full((6, 6), 255, np.uint8)])
    pixels[0, 0, 3] = 0
    _save(tmp_path / "1.png", pixels)
    Image.fromarray(RGB).quantize(36).save(tmp_path / "2.png")
    images = load_images(str(tmp_path)).images
    assert images[0, :, 0, 0].tolist() == [0, 0, 0]
    assert np.array_equal(images[0, :, 1], RGB.transpose(2, 0, 1)[:, 1])
    assert images[1].float().std(dim=0).max() > 10  # the channels differ


def test_mixed_sizes_need_a_size(tmp_path: Path) -> None:
    first, second = _save(tmp_path / "1.png"), _save(tmp_path / "2.png", GREY[:4])
    with pytest.raises(ValueError, match=rf"{first} is 6 x 6, {second} is 6 x 4 .*--size N"):
        load_images(str(tmp_path))
    assert load_images(str(tmp_path), size=5).images.shape == (2, 1, 5, 5)


def test_images_that_are_not_square_need_a_size(tmp_path: Path) -> None:
    _save(tmp_path / "1.png", GREY[:4])
    with pytest.raises(ValueError, match="expected square images, got 6 x 4 pixels"):
        load_images(str(tmp_path))
    assert load_images(str(tmp_path), size=4).images.shape == (1, 1, 4, 4)


@pytest.mark.parametrize("damage", ["truncated", "flipped", "text", "empty"])
def test_broken_image_is_named(damage: str, tmp_path: Path) -> None:
    _save(tmp_path / "1.png")
    path = _save(tmp_path / "2.png", STREAM.randint(0, 256, (64, 64)).astype(np.uint8))
    content = path.read_bytes()
    flipped = content[:20] + b"\xff" + content[21:]
    path.write_bytes(
        {"truncated": content[:2000], "flipped": flipped, "text": b"hello", "empty": b""}[damage]
    )
    with pytest.raises(ValueError, match=rf"{path}: expected an image, got a file that cannot be read"):
        load_images(str(tmp_path))


def test_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("no image")
    with pytest.raises(ValueError, match=rf"{tmp_path}: no images in this folder or below, expected .*\.png"):
        load_images(str(tmp_path))
