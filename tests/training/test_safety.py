"""Nothing is overwritten untold, what cannot start touches nothing, and a full disk costs an epoch."""

import errno
import os
import resource
import sys

import pytest
import yaml

from tests.training.runs import refused

# --- nothing is overwritten without being told -----------------------------------------------------------


@pytest.fixture
def mine(place):
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
    ],
)
def test_what_cannot_start_touches_nothing(words, mine, capsys):
    """Not even the run that it was told to replace."""
    refused(mine, lambda: mine.train("--name", "mine", "--overwrite", *words), capsys)
    refused(mine, lambda: mine.train("--name", "new", *words), capsys)


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
