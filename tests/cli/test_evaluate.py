"""The command that scores: what a run said of itself, to the digit; any reference, features or images."""

import json

import numpy as np
import pytest
import torch

from eqgan.cli.evaluate import evaluate
from eqgan.cli.sample import sample
from eqgan.data.sources import load_images
from eqgan.groups import P4, Z2
from tests.cli.made import saved, tiny_gan
from tests.training.runs import Place

SHARES = ("precision", "recall", "density", "coverage")


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    """Reference statistics are shared between the tests of this file."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EQGAN_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield tmp_path_factory


@pytest.fixture(autouse=True)
def _kept_cache(_own_places, monkeypatch, _cache):
    monkeypatch.setenv("EQGAN_CACHE", str(_cache.getbasetemp() / "shared_cache"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("logs") / "mine"
    saved(tiny_gan(P4), folder / "checkpoints" / "best-fid.ckpt")
    return folder


def test_a_run_is_scored_as_it_scored_itself(tmp_path, json_of):
    """The same samples, the same reference: to the last digit."""
    place = Place(tmp_path)
    small = {"batch_size": 16, "fraction": 0.05, "evaluation__samples": 130}
    summary = place.train("--name", "mine", "--epochs", "1", **small)
    told = json_of(evaluate, place.logs("mine"), "--device", "cpu")
    kept = summary["at_minimum"]
    assert {name: told[name] for name in ("fid", *SHARES)} == {name: kept[name] for name in ("fid", *SHARES)}
    assert told["fid_without_group_element"] == summary["fid_min_without_group_element"]
    assert told["provenance"]["data"] == kept["provenance"]["data"]
    assert told["provenance"]["features"] == kept["provenance"]["features"]
    assert told["kernel_distance"] > 0
    assert told["invariance_error"] < 1e-12
    for shares in (told["class_shares"], told["class_shares_real"]):
        assert sum(shares) == pytest.approx(1)
    assert 0 < told["orientation"]["real"] < told["orientation"]["samples"] + told["orientation"]["real"]
    assert told["memorisation"]["group"] == "p4m"
    assert told["memorisation"]["ratio"] > 0


def test_repeats_are_fresh_draws(run, json_of):
    told = json_of(evaluate, run, "--samples", "50", "--repeats", "3")
    fids = [one["fid"] for one in told["repeats"]]
    assert len(set(fids)) == 3
    assert told["fid"] == pytest.approx(np.mean(fids))
    assert told["std"]["fid"] == pytest.approx(np.std(fids, ddof=1))
    assert json_of(evaluate, run, "--samples", "50")["fid"] == fids[0]
    assert json_of(evaluate, run, "--samples", "50", "--seed", "9")["fid"] not in fids


def test_any_reference(run, tmp_path, json_of):
    images = load_images("digits", split="test").images[:40]
    np.savez(tmp_path / "mine.npz", images=images.numpy())
    told = json_of(evaluate, run, "--samples", "40", "--reference", "mine.npz")
    assert told["provenance"]["data"]["count"] == 40
    assert told["provenance"]["data"]["name"] == "mine"
    assert told["provenance"]["data"]["split"] == "train"
    train = json_of(evaluate, run, "--samples", "40", "--split", "train")
    assert train["provenance"]["data"]["count"] == 1437
    assert train["fid"] != told["fid"]
    assert told["memorisation"] is None, "another set than the run's"
    assert train["memorisation"] is None, "the training images cannot say how far fresh ones are"
    assert train["orientation"]["samples"] > 0


def test_any_feature_network(run, json_of):
    told = json_of(evaluate, run, "--samples", "40", "--features", "torch.nn:Flatten", "--neighbours", "3")
    assert told["provenance"]["features"]["name"] == "torch.nn:Flatten"
    assert told["provenance"]["neighbours"]["k"] == 3
    assert told["class_shares"] is None


def test_images_from_anywhere(run, tmp_path, json_of, complaint):
    """What `eqgan sample` writes, or any other program; real images are close to themselves."""
    sample([str(run), "-n", "60", "--out", "x.npz"])
    sample([str(run), "-n", "60", "--out", "x"])
    first = json_of(evaluate, "x.npz", "--reference", "digits")
    assert json_of(evaluate, "x", "--reference", "digits")["fid"] == pytest.approx(first["fid"], rel=1e-9)
    assert first["provenance"]["samples"] == 60
    np.savez("real.npz", images=load_images("digits", split="test").images.numpy())
    real = json_of(evaluate, "real.npz", "--reference", "digits")
    assert real["fid"] < 1e-2 < first["fid"]
    assert real["precision"] == real["coverage"] == 1.0
    assert "say with --reference" in complaint(evaluate, "x.npz")


def test_a_conditional_gan(tmp_path, json_of, capsys):
    """Labels as often as among the real images; even ones where those have no labels."""
    path = saved(tiny_gan(P4, num_classes=10), tmp_path / "x.ckpt")
    told = json_of(evaluate, path, "--samples", "60")
    assert len(told["classes"]["by_class"]) == 10
    assert 0 <= told["classes"]["accuracy"] <= 1
    assert told["invariance_error"] < 1e-12
    np.savez("plain.npz", images=load_images("digits", split="test").images[:50].numpy())
    plain = json_of(evaluate, path, "--samples", "60", "--reference", "plain.npz")
    assert plain["classes"] is None
    assert plain["fid"] > 0
    evaluate([str(path), "--samples", "60"])
    assert "samples of the right class" in " ".join(capsys.readouterr().out.split())


def test_table_and_file(run, capsys):
    evaluate([str(run), "--samples", "40", "--repeats", "2", "--out", "scores.json"])
    out = capsys.readouterr().out
    for word in (
        "Fréchet distance",
        "+-",
        "kernel distance",
        "without the group element",
        "360 images of digits",
    ):
        assert word in out
    with open("scores.json") as file:
        assert json.load(file)["provenance"]["samples"] == 40
    evaluate([str(run), "--samples", "30", "--out", "scores.json"])  # one's own results are replaced
    with open("scores.json") as file:
        assert json.load(file)["provenance"]["samples"] == 30


def test_results_replace_nothing_else(run, tmp_path, complaint):
    for name, told in (("a.npz", "expected a name ending in .json"), ("a.json", "something else than")):
        (tmp_path / name).write_text("mine")
        assert told in complaint(evaluate, run, "--samples", "10", "--out", name)
        assert (tmp_path / name).read_text() == "mine"


def test_a_gan_without_group_has_neither_orbit_nor_error(tmp_path, json_of):
    path = saved(tiny_gan(Z2), tmp_path / "x.ckpt")
    told = json_of(evaluate, path, "--samples", "40")
    assert told["fid_without_group_element"] is None
    assert told["invariance_error"] == 0.0


@pytest.mark.parametrize(
    ("words", "status", "told"),
    [
        ("--reference nowhere", 1, "unknown source of images"),
        ("--reference empty", 1, "no images in this folder or below"),
        ("--split extra", 1, "has no extra split"),
        ("--features nosuch:thing", 1, "cannot be imported"),
        ("--features torch.nn:Identity", 1, "expected an output of shape"),
        ("--samples 4", 1, "at least 6 are needed"),
        ("--samples 1", 2, "at least 2"),
        ("--repeats many", 2, "at least 1"),
        ("--out file/x.json", 1, "could not write"),
        ("--sample 3", 2, "did you mean '--samples'"),
    ],
)
def test_bad_input_is_one_line(words, status, told, run, tmp_path, complaint):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    more = [] if "--samples" in words else ["--samples", "10"]
    assert told in complaint(evaluate, run, *words.split(), *more, status=status)


@pytest.mark.parametrize("name", ["images.npy", "photo.png"])
def test_what_is_neither_run_nor_images(name, tmp_path, complaint):
    (tmp_path / name).write_bytes(b"x")
    assert "an .npz (numpy.savez) or a folder of them" in complaint(evaluate, name, "--reference", "digits")


def test_a_reference_of_one_image(run, tmp_path, complaint):
    np.savez(tmp_path / "one.npz", images=np.zeros((1, 28, 28), np.uint8))
    assert "expected at least 2" in complaint(evaluate, run, "--reference", "one.npz", "--samples", "9")
    np.savez(tmp_path / "none.npz", images=np.zeros((0, 28, 28), np.uint8))
    assert "expected an array of images" in complaint(evaluate, run, "--reference", "none.npz")


def test_what_is_no_checkpoint(tmp_path, complaint):
    assert "no checkpoint at" in complaint(evaluate, "nowhere.ckpt")
    torch.save({"weights": 1}, "other.ckpt")
    assert "is not a checkpoint of eqgan" in complaint(evaluate, "other.ckpt")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    assert "no checkpoint in" in complaint(evaluate, "run")


def test_help(help_of):
    assert "eqgan evaluate samples.npz --reference rotmnist" in help_of(evaluate)
