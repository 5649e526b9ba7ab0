"""What a run leaves behind, says and records."""

import csv
import json
import re
import sys

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

from eqgan.cli import train_gan
from eqgan.data.module import ImageData
from eqgan.groups import P4
from eqgan.metrics import FeatureExtractor
from eqgan.networks import ConvDiscriminator, ConvGenerator, Generator
from eqgan.networks.features import feature_network
from eqgan.training.callbacks import read_checkpoint
from eqgan.training.folder import RunFolder
from eqgan.training.module import GAN
from eqgan.training.report import show_summary
from eqgan.training.run import EvaluationSettings, Run
from tests.training.runs import refused

SCALARS = {
    *("d_loss", "g_loss", "score_real", "score_fake", "penalty", "images_per_second", "epoch"),
    *("gradient_norm_generator", "gradient_norm_discriminator"),
    *("fid", "fid_min", "precision", "recall", "density", "coverage", "fid_min_rescored"),
}


@pytest.fixture(scope="module")
def summary(shared, whole):
    return json.loads((shared.logs(whole) / "summary.json").read_text())


def test_files(shared, whole):
    assert {p.name for p in shared.samples(whole).iterdir()} == {
        *("epoch_0000.png", "epoch_0001.png", "epoch_0002.png", "epoch_0003.png", "real.png", "metrics.csv")
    }
    logs = {p.name for p in shared.logs(whole).iterdir() if "tfevents" not in p.name}
    assert logs >= {"config.yaml", "summary.json", "checkpoints"}
    assert {p.name for p in (shared.logs(whole) / "checkpoints").iterdir()} == {"last.ckpt", "best-fid.ckpt"}


def test_the_grids(shared, whole):
    """Eight samples in a row, enlarged three times with a frame of three."""
    pictures = {p.name: np.asarray(Image.open(p)) for p in shared.samples(whole).glob("*.png")}
    assert {picture.shape for picture in pictures.values()} == {(28 * 3 + 6, 8 * (28 * 3 + 3) + 3, 3)}
    assert len({picture.tobytes() for picture in pictures.values()}) == 5, "no two are the same"
    assert pictures["real.png"].max() > 200, "digits are white"
    assert pictures["real.png"][3:87, 3:6].max() == 0, "on black"


def test_the_table_of_metrics(shared, whole):
    rows = shared.rows(whole)
    assert [row["epoch"] for row in rows] == ["0", "1", "2", "3"]
    assert [int(row["step"]) for row in rows] == [2, 5, 7, 10], "generator steps, every other batch"
    numbers = {k: [float(row[k]) for row in rows] for k in rows[0]}
    assert numbers.keys() >= SCALARS - {"fid_min_rescored"} | {"seconds"}
    assert all(np.isfinite(column).all() for column in numbers.values())
    assert numbers["fid_min"] == list(np.minimum.accumulate(numbers["fid"]))
    assert numbers["seconds"] == sorted(numbers["seconds"])


def test_the_settings_are_kept_and_can_be_given_again(shared, whole):
    settings = yaml.safe_load((shared.logs(whole) / "config.yaml").read_text())
    assert settings["name"] == whole
    assert settings["epochs"] == 4
    assert settings["dataset"]["source"] == "digits"
    assert settings["discriminator"]["init_args"]["group"] == "p4"
    assert settings["gan"]["betas"] == [0.5, 0.9]
    assert yaml.safe_load(read_checkpoint(shared.last(whole))["eqgan"]["config"]) == settings


def test_the_summary(shared, whole, summary):
    rows = shared.rows(whole)
    assert summary["run"] == whole
    assert (summary["group"], summary["group_order"]) == ("p4", 4)
    assert summary["epochs"] == 4
    assert summary["generator_steps"] == 10
    for role in ("generator", "discriminator"):
        assert summary[role]["parameters"] > 0
        assert summary[role]["multiply_adds"] > 0
    assert summary["images_per_second"] > 0
    assert summary["peak_memory_mebibytes"] > 1
    assert set(summary["convolution_paths"]) == {"generator", "discriminator"}
    assert set(summary["convolution_paths"]["discriminator"].values()) <= {"bank", "fourier"}
    scored = [float(row["fid"]) for row in rows]
    assert summary["fid_min_seen"] == min(scored)
    assert summary["fid_min_epoch"] == scored.index(min(scored))
    assert 0 <= summary["invariance_error"] < 1e-9
    for shares in (summary["class_shares_final"], summary["class_shares_real"]):
        assert sum(shares) == pytest.approx(1)
    assert summary["versions"]["torch"] == torch.__version__


def test_where_a_score_comes_from_is_recorded(summary):
    provenance = summary["at_minimum"]["provenance"]
    assert provenance["samples"] == 64
    assert provenance["data"]["name"] == "digits"
    assert provenance["data"]["split"] == "test"
    assert provenance["data"]["count"] == 360
    assert len(provenance["features"]["sha256"]) == 64
    assert provenance["features"]["resize"]


def test_the_minimum_is_scored_again_on_fresh_latents(summary):
    again = summary["at_minimum"]
    assert again["fid"] != summary["fid_min_seen"]
    assert again["fid"] == pytest.approx(summary["fid_min_seen"], rel=0.2)
    assert {"precision", "recall", "density", "coverage"} <= again.keys()


def test_the_best_checkpoint_is_that_of_the_minimum(shared, whole, summary):
    best, last = (read_checkpoint(shared.last(whole).with_name(n)) for n in ("best-fid.ckpt", "last.ckpt"))
    assert best["epoch"] == summary["fid_min_epoch"]
    assert last["epoch"] == 3
    assert best["eqgan"]["image_shape"] == [1, 28, 28]


@pytest.fixture(scope="module")
def board(shared, whole):
    events = EventAccumulator(str(shared.logs(whole)))
    events.Reload()
    return events


def test_tensorboard_scalars(board, shared, whole):
    assert set(board.Tags()["scalars"]) >= SCALARS
    rows = shared.rows(whole)
    fid = board.Scalars("fid")
    assert [event.step for event in fid] == [int(row["step"]) for row in rows]
    assert [event.value for event in fid] == pytest.approx([float(row["fid"]) for row in rows])
    assert [event.value for event in board.Scalars("epoch")] == [0, 1, 2, 3]
    assert all(event.value > 0 for event in board.Scalars("images_per_second"))


def test_tensorboard_shows_the_grid(board):
    pictures = board.Images("samples")
    assert [picture.step for picture in pictures] == [2, 5, 7, 10]


def test_tensorboard_knows_the_settings(shared, whole):
    """Its page of hyperparameters lists them, and runs by their minimum FID."""
    events = [e for path in shared.logs(whole).glob("*tfevents*") for e in EventFileLoader(str(path)).Load()]
    values = [value for event in events for value in event.summary.value]
    plugins = {v.tag: v.metadata.plugin_data.content for v in values if v.tag.startswith("_hparams_")}
    start = HParamsPluginData.FromString(plugins["_hparams_/session_start_info"]).session_start_info.hparams
    assert start["discriminator.init_args.group"].string_value == "p4"
    assert start["gan.lr_generator"].number_value == 1e-3
    assert start["dataset.source"].string_value == "digits"
    shown = HParamsPluginData.FromString(plugins["_hparams_/experiment"]).experiment.metric_infos
    assert [metric.name.tag for metric in shown] == ["fid_min"]


def test_the_progress_bar(place, capsys):
    """Losses and speed while it trains, the score when there is one."""
    place.train("--epochs", "1", "--trainer.limit_train_batches", "2")
    out, err = capsys.readouterr()
    bars = [line for line in re.split("[\r\n]", out + err) if "Epoch 0" in line]
    assert re.search(r"\d+/2 .*d_loss=[-\d.e+]+, g_loss=[-\d.e+]+, img/s=\d+", bars[-1])
    assert re.search(r"img/s=\d+, fid=[\d.e+]+, fid_min=[\d.e+]+", bars[-1])


def test_the_printed_table(summary, capsys):
    show_summary(summary)
    table = " ".join(capsys.readouterr().out.split())
    for told in (
        *("parameters", "multiply-adds", "images/s", "peak memory", "FID at the end", "minimum FID"),
        *("scored again on fresh latents", "precision", "recall", "coverage", "invariance error of D"),
        *("tensorboard --logdir", "checkpoints", "sample grids", "under p4"),
    ):
        assert told in table


def test_two_runs_of_one_seed_are_one(shared, whole):
    """Also when the feature network was loaded and the reference cached before."""
    shared.train("--name", "again", "--epochs", "1")
    assert (shared.samples("again") / "epoch_0000.png").read_bytes() == (
        shared.samples(whole) / "epoch_0000.png"
    ).read_bytes()
    shared.train("--name", "other-seed", "--epochs", "1", seed=4)
    assert (shared.samples("other-seed") / "epoch_0000.png").read_bytes() != (
        shared.samples(whole) / "epoch_0000.png"
    ).read_bytes()


def test_latents_depend_on_the_seed_alone(place, monkeypatch):
    """Not on the group, nor on what was drawn in this process before: two runs differ in the group only."""
    seen = []
    draw = ConvGenerator.draw_latents

    def draw_latents(self, count, generator=None):
        z = draw(self, count, generator)
        seen.extend([z] if generator is None else [])
        return z

    monkeypatch.setattr(Generator, "draw_latents", draw_latents)
    firsts = []
    for group in ("z2", "p4", "p4m"):
        torch.rand(3)
        seen.clear()
        place.train("--epochs", "1", "--trainer.limit_train_batches", "1", disc=group, symmetrise="false")
        firsts.append(next(z for z in seen if len(z) == 128))
    assert all(torch.equal(firsts[0], z) for z in firsts)


def test_the_group_element_can_be_left_out(place, summary, capsys):
    still = place.train("--epochs", "1", symmetrise="false")
    assert still["fid_min_without_group_element"] is None
    assert "group element" not in capsys.readouterr().out
    assert summary["fid_min_without_group_element"] > 0
    show_summary(summary)
    assert "without the group element" in capsys.readouterr().out


# --- odd ends --------------------------------------------------------------------------------------------


def test_a_score_that_says_nothing_does_not_spoil_the_end(place, monkeypatch, capsys):
    """A collapsed discriminator: all its scores are equal, so nothing can be said of its invariance."""
    scores = ConvDiscriminator.forward
    monkeypatch.setattr(ConvDiscriminator, "forward", lambda self, x: 0 * scores(self, x))
    summary = place.train("--epochs", "1", "--trainer.limit_train_batches", "1")
    assert summary["invariance_error"] is None
    assert "not defined" in capsys.readouterr().out


def test_training_that_diverges_says_so(place, capsys):
    with pytest.raises(SystemExit):
        place.train("--epochs", "1", gan__lr_generator=1e30, gan__lr_discriminator=1e30)
    lines = [line for line in capsys.readouterr().err.splitlines() if "eqgan: error: " in line]
    assert len(lines) == 1
    assert "training diverged" in lines[0]


def test_a_plain_discriminator_has_no_error_to_measure(place):
    summary = place.train("--epochs", "1", "--trainer.limit_train_batches", "1", disc="z2")
    assert summary["invariance_error"] == 0


def test_what_is_about_to_happen_is_said_first(place, capsys):
    place.train("--name", "mine", "--epochs", "1", "--trainer.limit_train_batches", "1")
    told = capsys.readouterr().out.split("Training:")[0]
    for line in (
        r"run mine: new, 1 epoch\(s\), seed 3, 32-true",
        r"data digits-50pct: 718 training images 1x28x28, sha256 [0-9a-f]{64}",
        r"generator: [\d,]+ parameters, [\d,]+ multiply-adds",
        r"discriminator: p4, group order 4, [\d,]+ parameters",
    ):
        assert re.search(line, told)
    place.resume("mine", "--epochs", "2")
    assert "run mine: resumed, 2 epoch(s)" in capsys.readouterr().out


def test_a_run_made_by_hand(tmp_path):
    """Without the command line: the same parts, put together in Python."""
    data = ImageData("digits", batch_size=128, fraction=0.2)
    data.setup()
    folder = RunFolder("mine", tmp_path / "logs", tmp_path / "samples")
    folder.claim(overwrite=False)

    def run(epochs):
        torch.manual_seed(0)
        gan = GAN(
            ConvGenerator(data.image_shape, latent_dim=8, width=2),
            ConvDiscriminator(data.image_shape, P4, width=4),
        )
        extractor = FeatureExtractor.from_module(feature_network(), "features")
        settings = EvaluationSettings(samples=20, every=1, grid=4)
        return Run(
            gan=gan,
            data=data,
            extractor=extractor,
            folder=folder,
            epochs=epochs,
            evaluation=settings,
            progress_bar=False,
        )

    run(1).check()
    assert run(1).fit()["epochs"] == 1
    assert run(2).fit(resume=True)["epochs"] == 2
    assert len(list(folder.samples.glob("epoch_*.png"))) == 2


def test_an_evaluation_every_other_epoch_leaves_gaps(place):
    place.train("--name", "gaps", "--epochs", "3", evaluation__every=2, fraction=0.1, batch_size=64)
    with (place.samples("gaps") / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [bool(row["fid"]) for row in rows] == [False, True, True], "the last epoch is always scored"


def test_a_run_without_a_bar_or_a_table_of_classes(place):
    """Images without labels, in colour, of another size: no share of classes, features resized."""
    images = np.random.RandomState(0).randint(0, 256, (32, 16, 16, 3), dtype=np.uint8)
    np.savez(place.root / "mine.npz", images=images)
    summary = place.train(
        *("--epochs", "1"),
        data=str(place.root / "mine.npz"),
        fraction=1,
        batch_size=16,
        evaluation__samples=20,
    )
    assert summary["run"].startswith("mine-conv-")
    assert summary["class_shares_final"] is summary["class_shares_real"] is None
    assert summary["at_minimum"]["provenance"]["data"]["split"] == "train"


def test_too_few_real_images_to_score_against(place, capsys):
    """Told before the first step, not after the first epoch."""
    images = np.zeros((40, 28, 28), np.uint8)
    np.savez(place.root / "few.npz", x_train=images, x_test=images[:5])
    options = {"data": str(place.root / "few.npz"), "fraction": 1, "batch_size": 16}
    line = refused(place, lambda: place.train("--epochs", "1", **options), capsys)
    assert "few: expected at least 6 images to score samples against, got 5" in line


def test_train_gan_takes_the_words_of_the_command_line(place, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["train_gan.py", *place.argv("--epochs", "0")])
    with pytest.raises(SystemExit):
        train_gan()
    assert "--epochs: expected at least 1, got 0" in capsys.readouterr().err
