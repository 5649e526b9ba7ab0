"""The command that samples: three kinds of files, exact orbits, and one line for what cannot be."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eqgan.cli.evaluate import evaluate
from eqgan.cli.sample import sample
from eqgan.data.sources import load_images
from eqgan.groups import P4, P4M
from eqgan.training.load import load_gan
from eqgan.training.sampling import draw_samples, orbits, to_bytes
from tests.cli.made import saved, tiny_gan


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs") / "mine"
    saved(tiny_gan(P4), folder / "checkpoints" / "best-fid.ckpt")
    return folder


def drawn(run, count, **options):
    return torch.cat([to_bytes(part.images) for part in draw_samples(load_gan(run), count, **options)])


def test_an_npz_holds_images_latents_and_where_they_are_from(run, tmp_path):
    told = sample([str(run), "-n", "30", "--seed", "2", "--truncation", "0.8", "--out", "x.npz"])
    with np.load("x.npz", allow_pickle=False) as found:
        assert found["images"].dtype == np.uint8
        assert np.array_equal(found["images"], drawn(run, 30, seed=2, truncation=0.8).numpy())
        assert found["latents"].shape == (30, 9)
        assert json.loads(str(found["about"])) == told
    assert told["seed"] == 2
    assert load_images("x.npz").images.shape == (30, 1, 28, 28), "it is a source of images"
    assert load_images("x.npz").labels is None


def test_a_folder_of_pictures(run):
    sample([str(run / "checkpoints" / "best-fid.ckpt"), "-n", "3", "--out", "here/folder"])
    found = load_images("here/folder")
    assert torch.equal(found.images, drawn(run, 3))
    assert sorted(os.listdir("here/folder")) == ["000000.png", "000001.png", "000002.png"]
    assert os.listdir("here") == ["folder"]


def test_a_folder_of_jpegs_as_some_published_scores_were_made_of(run):
    """The protocol of C4-MNIST: samples with the losses of JPEG, scored as a folder of images."""
    sample([str(run), "-n", "30", "--jpeg", "--out", "default"])
    sample([str(run), "-n", "30", "--jpeg", "20", "--out", "coarse"])
    exact = drawn(run, 30).float()
    errors = {}
    for folder in ("default", "coarse"):
        assert len(list(Path(folder).glob("*.jpg"))) == len(os.listdir(folder)) == 30
        found = load_images(folder)
        assert found.images.shape == exact.shape
        errors[folder] = (found.images.float() - exact).abs().mean().item()
    assert 0 < errors["default"] < errors["coarse"] < 30
    np.savez("real.npz", images=drawn(run, 30, seed=1).numpy())
    scores = evaluate(["default", "--reference", "real.npz", "--json"])
    assert scores["fid"] > 0
    assert scores["provenance"]["samples"] == 30


def test_a_run_by_its_name(run, tmp_path):
    (tmp_path / "logs").mkdir(exist_ok=True)
    (tmp_path / "logs" / "byname").symlink_to(Path(run).resolve(), target_is_directory=True)
    sample(["byname", "-n", "10", "--out", "named.png"])
    sample([str(run), "-n", "10", "--out", "given.png"])
    assert Path("named.png").read_bytes() == Path("given.png").read_bytes()


def test_a_grid(run):
    sample([str(run), "-n", "10", "--out", "x.png"])
    with Image.open("x.png") as picture:
        assert picture.size == (3 * (8 * 29 + 1), 3 * (2 * 29 + 1))


def test_orbits(run):
    sample([str(run), "-n", "5", "--orbit", "--out", "x.npz"])
    with np.load("x.npz") as found:
        expected = orbits(drawn(run, 5), P4).flatten(0, 1)
        assert np.array_equal(found["images"], expected.numpy())
        assert found["orbit"].tolist() == [[i, g] for i in range(5) for g in range(4)]
    sample([str(run), "-n", "2", "--orbit", "--group", "p4m", "--out", "folder"])
    assert len(os.listdir("folder")) == 2 * P4M.order
    assert "000001_g7.png" in os.listdir("folder")
    sample([str(run), "-n", "2", "--orbit", "--out", "x.png"])
    with Image.open("x.png") as picture:
        assert picture.size == (3 * (4 * 29 + 1), 3 * (2 * 29 + 1)), "a row is an orbit"


def test_classes_of_a_conditional_gan(tmp_path, complaint):
    path = saved(tiny_gan(P4, num_classes=3), tmp_path / "x.ckpt")
    sample([str(path), "-n", "6", "--out", "x.npz", "--class", "2"])
    sample([str(path), "-n", "40", "--out", "y.npz", "--orbit"])
    sample([str(path), "-n", "40", "--out", "folder"])
    with np.load("x.npz") as threes, np.load("y.npz") as all_of_them:
        assert threes["labels"].tolist() == [2] * 6
        labels = all_of_them["labels"]
        assert set(labels) == {0, 1, 2}
        assert (labels.reshape(40, 4) == labels.reshape(40, 4)[:, :1]).all()
    assert sorted(os.listdir("folder")) == ["0", "1", "2"]
    assert torch.equal(load_images("y.npz").labels, torch.from_numpy(labels))
    assert "no class 3: this GAN draws 3 classes, 0 to 2" in complaint(
        sample, path, "--out", "z.npz", "--class", "3"
    )


def test_json(run, json_of):
    told = json_of(sample, run, "-n", "2", "--out", "x.npz")
    assert (told["count"], told["out"], told["class"]) == (2, "x.npz", None)
    assert told["checkpoint"].endswith("best-fid.ckpt")


def test_nothing_is_overwritten_untold(run, complaint):
    sample([str(run), "-n", "2", "--out", "x.npz"])
    sample([str(run), "-n", "2", "--out", "folder"])
    for out in ("x.npz", "folder"):
        assert "is there already" in complaint(sample, run, "-n", "2", "--out", out)
        sample([str(run), "-n", "3", "--out", out, "--overwrite"])
    assert len(os.listdir("folder")) == 3


def test_a_folder_with_anything_else_in_it_is_never_replaced(run, complaint):
    sample([str(run), "-n", "2", "--out", "folder"])
    for other in ("notes.txt", "3/notes.txt", "photos/000001.png"):
        path = Path("folder") / other
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        told = complaint(sample, run, "-n", "3", "--out", "folder", "--overwrite")
        assert f"got {path if path.parent.name != 'photos' else path.parent} there" in told
        assert path.read_text() == "mine"
        path.unlink()
        if path.parent.name != "folder":
            path.parent.rmdir()
    sample([str(run), "-n", "3", "--out", "folder", "--overwrite"])


def test_a_folder_is_written_whole_or_not_at_all(run, complaint, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    assert "No space left" in complaint(sample, run, "-n", "2", "--out", "folder")
    assert os.listdir() == []


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("--out x.npz --class 3", 1, "this GAN is unconditional"),
        ("--out x.npz --truncation 0", 1, "expected a number above 0"),
        ("--out x.gif", 1, "expected a name ending in .npz or .png, or a folder, got .gif"),
        ("--out x.npz --jpeg", 1, "--jpeg: expected a folder to write the files into, got --out x.npz"),
        ("--out folder --jpeg 100", 2, "expected a quality from 1 to 95, got '100'"),
        ("--out x.png -n 5000", 1, "a grid holds at most"),
        ("--out /proc/x.npz", 1, "/proc"),
        ("--out x.npz -n 0", 2, "at least 1"),
        ("--out x.npz --class three", 2, "invalid int value"),
        ("--out x.npz --orbit --group p5", 2, "unknown plane group 'p5'"),
        ("--out x.npz --sed 3", 2, "did you mean '--seed'"),
        ("", 2, "required: --out"),
    ],
)
def test_bad_input_is_one_line(words, status, told, run, complaint):
    assert told in complaint(sample, run, *words.split(), status=status)
    assert os.listdir() == []


def test_what_is_no_checkpoint(tmp_path, complaint):
    assert "no checkpoint at" in complaint(sample, "nowhere.ckpt", "--out", "x.npz")
    (tmp_path / "empty").mkdir()
    assert "no checkpoint in" in complaint(sample, "empty", "--out", "x.npz")
    torch.save({"weights": 1}, "other.ckpt")
    assert "is not a checkpoint of eqgan" in complaint(sample, "other.ckpt", "--out", "x.npz")


def test_a_folder_that_cannot_be_written(run, tmp_path, complaint):
    (tmp_path / "file").write_text("")
    assert "cannot be written to" in complaint(sample, run, "--out", "file/x.npz")
    if os.geteuid():
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written to" in complaint(sample, run, "--out", "locked/x.npz")


def test_help(help_of):
    assert "eqgan sample logs/my-run -n 10000 --out samples.npz" in help_of(sample)
