"""Nothing is overwritten untold, what cannot start touches nothing, and a full disk costs an epoch."""

import errno
import os
import resource
import sys

import numpy as np
import pytest
import yaml
from PIL import Image

from eqgan.data.mnist import MNIST_SHA256
from tests.data.conftest import idx_bytes
from tests.training.runs import Place, refused

# --- nothing is overwritten without being told -----------------------------------------------------------


@pytest.fixture
def mine(place):
    place.train("--name", "mine", "--epochs", "1")
    return place


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """The same, for those that may not touch it."""
    place = Place(tmp_path_factory.mktemp("kept"))
    place.train("--name", "mine", "--epochs", "1")
    return place


def test_a_name_is_taken_once(mine, capsys):
    line = refused(mine, lambda: mine.train("--name", "mine", "--epochs", "1", seed=9), capsys)
    assert "a run named 'mine' exists" in line
    assert "--resume mine" in line
    assert "--overwrite" in line


def test_overwrite_replaces(mine):
    (mine.samples("mine") / "epoch_0007.png").write_bytes(b"of a longer run")
    mine.train("--name", "mine", "--epochs", "1", "--overwrite", seed=9)
    assert not (mine.samples("mine") / "epoch_0007.png").exists()
    assert yaml.safe_load((mine.logs("mine") / "config.yaml").read_text())["seed"] == 9


@pytest.mark.parametrize("where", ["logs", "samples"])
def test_a_folder_of_something_else_is_never_replaced(where, place, capsys):
    folder = getattr(place, where)("photos")
    folder.mkdir(parents=True)
    (folder / "mine.png").write_bytes(b"mine")
    words = ("--name", "photos", "--epochs", "1", "--overwrite")
    assert "it is not replaced" in refused(place, lambda: place.train(*words), capsys)
    assert (folder / "mine.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    "words",
    [
        ("--precision", "foo"),
        ("--trainer.no_such_argument", "3"),
        ("--trainer.logger", "false"),
        ("--gan.lr_generator", "-1"),
        ("--evaluation.reference", "nosplit"),
        ("--fid-features", "torch.nn:Identity"),
        ("--epochs", "0"),
        ("--discriminator.width", "0"),
        ("--disc", "p5"),
        ("--size", "29"),
        ("--trainer.limit_train_batches", "0"),
        ("--trainer.max_steps", "0"),
        ("--data", ""),
    ],
)
def test_what_cannot_start_touches_nothing(words, kept, capsys):
    """Not even the run that it was told to replace."""
    status = 2 if words[0] == "--disc" else 1
    refused(kept, lambda: kept.train("--name", "mine", "--overwrite", *words), capsys, status)
    refused(kept, lambda: kept.train("--name", "new", *words), capsys, status)


def mnist_in(folder, content):
    """Four files, all with this content."""
    for name in MNIST_SHA256:
        (folder / name).write_bytes(content)
    return "--data", "rotmnist", "--data-root", str(folder)


def mixed_sizes(folder):
    for side in (28, 30):
        Image.new("L", (side, side)).save(folder / f"{side}.png")
    return "--data", str(folder)


def broken_image(folder):
    (folder / "half.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    return "--data", str(folder)


def broken_arrays(folder):
    (folder / "half.npz").write_bytes(b"PK\x03\x04 and no more")
    return "--data", str(folder / "half.npz")


BROKEN = {
    "truncated": (lambda folder: mnist_in(folder, idx_bytes(np.zeros((3, 2, 2)))[:-1]), "truncated"),
    "wrong-hash": (lambda folder: mnist_in(folder, idx_bytes(np.zeros((3, 2, 2)))), "not the published"),
    "empty-folder": (lambda folder: ("--data", str(folder)), "no images in this folder"),
    "mixed-sizes": (mixed_sizes, "Add --size N"),
    "broken-image": (broken_image, "half.png: expected an image"),
    "broken-npz": (broken_arrays, "half.npz"),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_data_are_told_in_one_line_and_touch_nothing(fault, kept, tmp_path_factory, capsys):
    """Nor the run that was to be replaced."""
    make, told = BROKEN[fault]
    words = make(tmp_path_factory.mktemp("broken"))
    assert told in refused(kept, lambda: kept.train("--name", "mine", "--overwrite", *words), capsys)


def test_a_name_that_is_no_name(place, capsys):
    for name in ("a/b", "..", "-x", "a b", ""):
        line = refused(place, lambda name=name: place.train(f"--name={name}"), capsys)
        assert "expected letters, digits" in line


# --- a full disk -----------------------------------------------------------------------------------------


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["replace", "fsync"])
def test_a_full_disk_leaves_the_last_checkpoint(call, mine, monkeypatch, capsys):
    before = mine.content()
    with monkeypatch.context() as patch:
        patch.setattr(os, call, no_space)
        with pytest.raises(SystemExit) as stop:
            mine.resume("mine", "--epochs", "2")
    lines = [line for line in capsys.readouterr().err.splitlines() if "eqgan: error: " in line]
    assert stop.value.code == 1
    assert len(lines) == 1
    assert "No space left on device" in lines[0]
    after = mine.content()
    assert {name: after[name] for name in before} == before
    assert not [name for name in after if ".tmp" in name], "half-written files are removed"
    mine.resume("mine", "--epochs", "2")
    assert len(mine.rows("mine")) == 2


@pytest.mark.skipif(sys.platform == "win32", reason="no limits on the size of files")
def test_a_write_that_fails_half_way(mine, capsys):
    """No monkey patch: the system refuses to write more than a few kilobytes into one file."""
    before = mine.content()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
        with pytest.raises(SystemExit) as stop:
            mine.resume("mine", "--epochs", "2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    lines = [line for line in capsys.readouterr().err.splitlines() if "eqgan: error: " in line]
    assert stop.value.code == 1
    assert len(lines) == 1
    assert "last.ckpt: File too large. An earlier file of that name is unchanged" in lines[0]
    checkpoints = {name: content for name, content in before.items() if name.endswith(".ckpt")}
    assert {name: mine.content()[name] for name in checkpoints} == checkpoints
    mine.resume("mine", "--epochs", "2")


def test_a_folder_that_cannot_be_made(place, capsys):
    (place.root / "logs").write_text("a file where the folder should be")
    line = refused(place, lambda: place.train("--name", "x", "--epochs", "1"), capsys)
    assert str(place.root / "logs") in line
