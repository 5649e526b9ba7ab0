"""`eqgan convert` from each of its sources, against what reading the same source into memory gives."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqgan.cli.convert import convert
from eqgan.data import convert as streams
from eqgan.data.folder import read_folder
from eqgan.data.lensing import TASKS, simulate, simulator
from eqgan.data.sources import open_source
from eqgan.data.store import read_store

PIXELS = np.random.RandomState(0).randint(0, 256, (20, 6, 6)).astype(np.uint8)


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "_BLOCK", 7 * 36)
    monkeypatch.setattr(simulator, "BLOCK", 4)


def _convert(*words: object) -> None:
    convert([str(word) for word in words])


def _fails(capsys: pytest.CaptureFixture, *words: object, status: int = 1) -> str:
    with pytest.raises(SystemExit) as caught:
        _convert(*words)
    error = capsys.readouterr().err
    assert caught.value.code == status
    assert error.count("\n") == 1
    return error


def test_an_array_with_labels(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    np.save(tmp_path / "y.npy", np.arange(20) % 2 * 5)
    _convert(tmp_path / "x.npy", tmp_path / "cells.store", "--labels", tmp_path / "y.npy")
    assert "20 train; SHA-256" in capsys.readouterr().out
    source = read_store(tmp_path / "cells.store")
    train = source.split("train")
    assert np.array_equal(train.images[:, 0], PIXELS)
    assert (source.name, train.class_names, train.labels.tolist()) == ("cells", ("0", "5"), [0, 1] * 10)


def test_arrays_with_test_images(tmp_path: Path) -> None:
    """The classes are numbered over both, and floats are scaled by the range of both."""
    values, labels = PIXELS / 255, np.arange(20) % 2 * 5
    values[18] = 1.0
    for name, array in {
        "x": values[:12] / 2,
        "y": labels[:12],
        "tx": values[12:],
        "ty": labels[12:] + 5,
    }.items():
        np.save(tmp_path / f"{name}.npy", array)
    test = ["--test", tmp_path / "tx.npy", "--test-labels", tmp_path / "ty.npy"]
    _convert(tmp_path / "x.npy", tmp_path / "x.store", "--labels", tmp_path / "y.npy", *test)
    train, test = (read_store(tmp_path / "x.store").split(split) for split in ("train", "test"))
    assert (train.class_names, train.labels.tolist()) == (("0", "5", "10"), [0, 1] * 6)
    assert test.labels.tolist() == [1, 2] * 4
    assert np.abs(train.images[:, 0].numpy() - values[:12] / 2 * 255).max() <= 0.5
    assert np.abs(test.images[:, 0].numpy() - values[12:] * 255).max() <= 0.5


@pytest.mark.parametrize("low", [0.0, -1.0])
@pytest.mark.parametrize("channels", ["none", "last", "first"])
def test_arrays_of_floats_are_scaled_by_the_whole(low: float, channels: str, tmp_path: Path) -> None:
    values = np.random.RandomState(0).uniform(low / 2, 0.4, (20, 6, 6, 3)).astype(np.float32)
    values[-1] = 1.0
    values[0, 0, 0] = low  # the range shows in no block but the first and the last
    values = {"none": values[..., 0], "last": values, "first": values.transpose(0, 3, 1, 2)}[channels]
    np.save(tmp_path / "x.npy", values)
    np.savez(tmp_path / "x.npz", x=values)
    _convert(tmp_path / "x.npy", tmp_path / "x.store")
    expected = open_source(str(tmp_path / "x.npz")).split("train").images
    assert torch.equal(read_store(tmp_path / "x.store").split("train").images, expected)


def test_sizes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "x.npy", PIXELS[:, :, :5])
    error = _fails(capsys, tmp_path / "x.npy", tmp_path / "x.store")
    assert "expected square images, got 5 x 6" in error
    assert "--size N" in error
    _convert(tmp_path / "x.npy", tmp_path / "x.store", "--size", 4)
    np.savez(tmp_path / "x.npz", x=PIXELS[:, :, :5])
    expected = open_source(str(tmp_path / "x.npz"), size=4).split("train")
    assert torch.equal(read_store(tmp_path / "x.store").split("train").images, expected.images)


def _photos(folder: Path, grey: bool, side: int = 6) -> None:
    for split in ("train", "test"):
        for i in range(9):
            path = folder / split / ("cat" if i % 2 else "dog") / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = np.random.RandomState(i).randint(0, 256, (side, side, 3)).astype(np.uint8)
            Image.fromarray(pixels[..., 0] if grey or i < 8 else pixels).save(path)


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("size", [None, 4])
def test_folders(grey: bool, size: int | None, tmp_path: Path) -> None:
    _photos(tmp_path / "photos", grey)
    _convert(tmp_path / "photos", tmp_path / "p.store", *([] if size is None else ["--size", size]))
    expected, got = read_folder(tmp_path / "photos", "photos", size), read_store(tmp_path / "p.store")
    for split in ("train", "test"):
        assert torch.equal(got.split(split).images, expected.split(split).images)
        assert got.split(split).sha256 == expected.split(split).sha256
        assert got.split(split).class_names == ("cat", "dog")


def test_folders_of_different_sizes(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _photos(tmp_path / "photos", True)
    Image.new("L", (5, 5)).save(tmp_path / "photos" / "test" / "cat" / "z.png")
    error = _fails(capsys, tmp_path / "photos", tmp_path / "p.store")
    assert "expected images of one size" in error
    assert not (tmp_path / "p.store").exists()


def test_simulated_lenses(tmp_path: Path) -> None:
    _convert("lens3", tmp_path / "l.store", "--count", 10, "--seed", 7, "--name", "many")
    source = read_store(tmp_path / "l.store")
    images = torch.cat([part for part, _ in simulate(TASKS["lens3"], 12, 7)])
    got = torch.cat([source.split(split).images for split in ("train", "test")])
    assert torch.equal(got, images)
    assert (source.name, len(source.split("test"))) == ("many", 2)
    assert source.split("test").labels.tolist() == [1, 2]
    assert source.split("train").class_names == ("no", "sphere", "vortex")


def test_named_sets_and_json(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    _convert("digits", tmp_path / "d.store", "--size", 7, "--json")
    told = json.loads(capsys.readouterr().out)
    assert told["images"] == {"train": 1437, "test": 360}
    expected = open_source("digits", size=7)
    for split in ("train", "test"):
        assert read_store(tmp_path / "d.store").split(split).sha256 == expected.split(split).sha256


def test_verify_and_overwrite(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    np.save(tmp_path / "x.npy", PIXELS)
    path = tmp_path / "x.store"
    _convert(tmp_path / "x.npy", path)
    _convert(path, "--verify")
    assert "(verified)" in capsys.readouterr().out
    assert "--overwrite" in _fails(capsys, tmp_path / "x.npy", path)
    np.save(tmp_path / "x.npy", PIXELS[:5])
    _convert(tmp_path / "x.npy", path, "--overwrite")
    assert len(read_store(path).split("train")) == 5
    content = bytearray((path / "train-images.npy").read_bytes())
    content[-1] ^= 1
    (path / "train-images.npy").write_bytes(content)
    assert "SHA-256" in _fails(capsys, path, "--verify")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x.npy"], "got no STORE"),
        (["none.npy", "a.store"], "no such file"),
        (["lens", "a.store", "--count", "0"], "whole number of at least 1"),
        (["lens", "a.store", "--size", "9"], "not resized"),
        (["x.npy", "a.store", "--count", "9"], "--count goes with lens and lens3"),
        (["folder", "a.store", "--labels", "y.npy"], "--labels goes with an .npy file"),
        (
            ["x.npy", "a.store", "--labels", "y.npy"],
            "expected 20 whole-number labels, got float64 of shape (3,)",
        ),
        (["folder", "a.store", "--test", "x.npy"], "--test goes with an .npy file"),
        (["x.npy", "a.store", "--test-labels", "y.npy"], "name them with --test"),
        (["x.npy", "a.store", "--test", "nan.npy"], "expected arrays of one type"),
        (["x.npy", "a.store", "--test", "x.npy", "--test-labels", "y.npy"], "got those of test alone"),
        (["text.npy", "a.store"], "got one that cannot be read"),
        (["flat.npy", "a.store"], "expected images (N, H, W)"),
        (["nan.npy", "a.store"], "expected finite values, got NaN"),
        (["wide.npy", "a.store"], "expected values in 0..255"),
        (["zebra", "a.store"], "unknown source"),
        (["x.npy", "a.store", "--lables", "y.npy"], "did you mean '--labels'"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("text.npy").write_text("1, 2")
    arrays = {"x": PIXELS, "y": np.zeros(3), "flat": np.zeros(9), "wide": PIXELS * 9.0}
    arrays["nan"] = np.full(PIXELS.shape, 0.5)
    arrays["nan"][-1, 3, 3] = np.nan
    for name, array in arrays.items():
        np.save(f"{name}.npy", array)
    status = 2 if any(option in words for option in ("0", "--lables")) else 1
    assert message in _fails(capsys, *words, status=status)
    assert not Path("a.store").exists()
