from pathlib import Path

import numpy as np
import pytest

from eqgan.data.sources import load_images, open_source

STREAM = np.random.RandomState(0)
GREY = STREAM.randint(0, 256, (5, 6, 6)).astype(np.uint8)
RGB = STREAM.randint(0, 256, (5, 6, 6, 3)).astype(np.uint8)


def _save(tmp_path: Path, **arrays: np.ndarray) -> str:
    path = tmp_path / "cells.npz"
    np.savez(path, **arrays)
    return str(path)


SHAPES = {
    "NHW": (GREY, GREY[:, None]),
    "NHW1": (GREY[..., None], GREY[:, None]),
    "N1HW": (GREY[:, None], GREY[:, None]),
    "NHW3": (RGB, RGB.transpose(0, 3, 1, 2)),
    "N3HW": (RGB.transpose(0, 3, 1, 2), RGB.transpose(0, 3, 1, 2)),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape(shape: str, tmp_path: Path) -> None:
    array, expected = SHAPES[shape]
    images = load_images(_save(tmp_path, images=array))
    assert images.name == "cells"
    assert images.labels is None
    assert np.array_equal(images.images, expected)


RANGES = {
    "unit": GREY / 255,
    "float32": (GREY / 255).astype(np.float32),
    "signed": GREY / 127.5 - 1,
    "bytes-as-floats": GREY.astype(np.float32),
    "int64": GREY.astype(np.int64),
    "half": (GREY / 255).astype(np.float16),
}


@pytest.mark.parametrize("kind", RANGES)
def test_every_range(kind: str, tmp_path: Path) -> None:
    images = load_images(_save(tmp_path, x=RANGES[kind])).images
    assert np.array_equal(images[:, 0], GREY)


def test_booleans_are_black_and_white(tmp_path: Path) -> None:
    images = load_images(_save(tmp_path, masks=GREY > 127)).images
    assert np.array_equal(images[:, 0], np.where(GREY > 127, 255, 0))


FIRST = np.arange(5)[:, None, None] == 0
BAD = {
    "nan": (np.where(FIRST, np.nan, GREY / 255), "NaN or infinite"),
    "infinite": (np.where(FIRST, np.inf, GREY / 255), "NaN or infinite"),
    "standardised": ((GREY - 128.0) / 60, "got -2"),
    "sixteen-bit": (GREY.astype(np.uint16) * 257, r"0\.\.255"),
    "negative": (GREY.astype(np.int16) - 300, r"0\.\.255"),
}


@pytest.mark.parametrize("fault", BAD)
def test_other_values_are_refused(fault: str, tmp_path: Path) -> None:
    array, message = BAD[fault]
    with pytest.raises(ValueError, match=rf"cells\.npz: array 'x': expected .*{message}"):
        load_images(_save(tmp_path, x=array))


def test_first_image_like_array_and_first_labels(tmp_path: Path) -> None:
    path = _save(
        tmp_path, ids=np.arange(3), names=np.array(list("abcde")), x=GREY, z=RGB, kind=[3, 3, 8, 3, 8]
    )
    images = load_images(path)
    assert images.images.shape[1] == 1
    assert images.labels.tolist() == [0, 0, 1, 0, 1]
    assert images.class_names == ("3", "8")


@pytest.mark.parametrize("name", ["labels", "label", "y", "targets"])
@pytest.mark.parametrize("column", [False, True])
def test_named_labels_come_before_other_integers(name: str, column: bool, tmp_path: Path) -> None:
    labels = np.array([1.0, 0, 1, 0, 2])
    path = _save(tmp_path, ids=np.arange(5), x=GREY, **{name: labels[:, None] if column else labels})
    assert load_images(path).labels.tolist() == [1, 0, 1, 0, 2]


def test_labels_of_a_split_of_another_length(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected 5 whole-number labels in 'y_train'.* shape \(4,\)"):
        load_images(_save(tmp_path, x_train=GREY, y_train=np.arange(4)))


def test_labels_of_another_length_or_kind(tmp_path: Path) -> None:
    for labels in (np.arange(4), np.array([0.5] * 5)):
        with pytest.raises(ValueError, match=r"expected 5 whole-number labels in 'y', one per image, got"):
            load_images(_save(tmp_path, x=GREY, y=labels))


@pytest.mark.parametrize("style", ["keras", "medmnist"])
def test_splits_are_recognised_by_name(style: str, tmp_path: Path) -> None:
    """The two layouts that people download; the first array of the one from Keras is the test set."""
    labels = np.arange(5) % 3
    if style == "keras":
        arrays = {"x_test": GREY[:2], "x_train": GREY, "y_train": labels, "y_test": labels[:2]}
    else:
        arrays = {
            "train_images": GREY, "val_images": GREY[:3], "test_images": GREY[:2],
            "train_labels": labels[:, None], "val_labels": labels[:3, None], "test_labels": labels[:2, None],
        }  # fmt: skip
    source = open_source(_save(tmp_path, **arrays))
    assert source.splits == (("train", "test") if style == "keras" else ("train", "validation", "test"))
    for split, count in {"train": 5, "test": 2}.items():
        assert np.array_equal(source.split(split).images[:, 0], GREY[:count])
        assert source.split(split).labels.tolist() == labels[:count].tolist()


@pytest.mark.parametrize(
    "arrays",
    [
        {},
        {"x": np.zeros((5, 36))},
        {"x": np.zeros((5, 6, 6, 4))},
        {"x": np.zeros((0, 6, 6))},
        {"x": np.array("a")},
    ],
    ids=["none", "flat", "four-channels", "no-images", "text"],
)
def test_no_image_like_array(arrays: dict[str, np.ndarray], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected an array of images \(N, H, W\).*got (no arrays|x )"):
        load_images(_save(tmp_path, **arrays))


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"cells\.npz: expected an \.npz file of plain arrays.*pickle"):
        load_images(_save(tmp_path, x=GREY, y=np.array([object()] * 5)))


@pytest.mark.parametrize("damage", ["text", "empty", "truncated", "one-bit", "npy"])
def test_broken_file_is_named(damage: str, tmp_path: Path) -> None:
    path = Path(_save(tmp_path, x=GREY))
    content = bytearray(path.read_bytes())
    if damage == "npy":
        with path.open("wb") as file:
            np.save(file, GREY)
    elif damage == "one-bit":
        content[220] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes({"text": b"hello", "empty": b"", "truncated": content[:200]}[damage])
    with pytest.raises(ValueError, match=r"cells\.npz: expected an \.npz file"):
        load_images(str(path))


def test_resizing(tmp_path: Path) -> None:
    assert load_images(_save(tmp_path, x=RGB), size=4).images.shape == (5, 3, 4, 4)
