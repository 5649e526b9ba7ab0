"""``eqgan classify`` answers what a person is likely to mistype with one clear line, and touches nothing."""

import re

import numpy as np
import pytest

from eqgan.cli.classify import CHOICES, SHORT, classify, classify_parser
from eqgan.training import classification_run
from tests.training.runs import refused

RESNET = {"net": "resnet18", "size": 33, "network.stem": "small", "network.match": "none"}


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"net": "p4cn"}, "--net: unknown value 'p4cn'; did you mean 'p4cnn'?"),
        ({"epochs": 0}, "--epochs: expected at least 1, got 0"),
        ({"fit__ema_decay": 1}, "ema_decay in [0, 1)"),
        ({"fit__label_smoothing": -1}, "label_smoothing"),
        ({"judging__every": 0}, "every, patience and batch_size of at least 1"),
        ({"patience": 2, "validation_fraction": 0}, "Hold some out, --validation-fraction 0.1"),
        ({"group": "p6"}, "Use one of z2, p2, p4, pm, p2mm, p4m"),
        ({"init": "nowhere.ckpt"}, "no checkpoint at nowhere.ckpt"),
        ({"init": "torchvision:vgg11"}, "expected torchvision:resnet18 or torchvision:resnet34"),
        ({**RESNET, "init": "torchvision:resnet18"}, "EQGAN_NO_DOWNLOAD is set. Fetch https://"),
        ({"preprocess": "zca", "preprocess.group": "p2"}, "ZCAWhitening does not commute with p4"),
        ({"lr": -1}, "--optimizer: Invalid learning rate: -1"),
        ({"trainer.devices": 0}, "--devices: expected a number from 1"),
    ],
)
def test_values_that_cannot_be(options, told, small_place, capsys):
    small_place.argv()  # the data
    assert told in refused(small_place, lambda: small_place.train(**options), capsys)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--optimiser", "sgd"], "did you mean 'optimizer'?"),
        (["--network.widht", "3"], "unknown setting 'widht'; did you mean 'width'?"),
        (["--fit.ema", "3"], "unknown setting 'fit.ema'; did you mean 'fit.ema_decay'?"),
        (["--group", "p5"], "unknown plane group 'p5'"),
        (["--network", "eqgan.networks.ConvGenerator"], "not correspond to a subclass of Classifier"),
    ],
)
def test_mistypes(words, told, small_place, capsys):
    assert told in refused(small_place, lambda: classify(words), capsys, code=2)


def test_images_too_large_to_be_rotated_for_the_test(small_place, capsys, monkeypatch):
    """Known before the first step, not after the last."""
    monkeypatch.setattr(classification_run, "LARGEST_SIDE", 21)
    small_place.argv()
    told = refused(small_place, small_place.train, capsys)
    assert (
        "images of 22 pixels a side are not rotated for a test (at most 21): --judging.rotated false" in told
    )
    small_place.train("--name", "upright", "--epochs", "1", "--judging.rotated", "false")


def test_images_without_labels(small_place, capsys):
    small_place.argv()
    np.savez(small_place.root / "bare.npz", images=np.zeros((20, 22, 22), np.uint8))
    line = refused(
        small_place,
        lambda: small_place.train(data=small_place.root / "bare.npz", validation_fraction=0),
        capsys,
    )
    assert "expected images of at least two classes, got no labels" in line


def test_training_that_diverges_says_so(small_place, capsys):
    with pytest.raises(SystemExit):
        small_place.train("--epochs", "2", optimizer="sgd", lr=1e30, fit__ema_decay=0)
    lines = [line for line in capsys.readouterr().err.splitlines() if "eqgan: error: " in line]
    assert len(lines) == 1
    assert re.search(r"training diverged after \d rollback.*loss is nan.*Lower --optimizer.lr", lines[0])


def test_help_shows_the_short_forms(capsys):
    with pytest.raises(SystemExit):
        classify(["--help"])
    told = capsys.readouterr().out
    for option in (*SHORT, *CHOICES):
        assert option in told
    for _, names in CHOICES.values():
        assert all(name in told for name in names)


def test_every_default_is_a_setting_that_can_be_given_again(tmp_path):
    parser = classify_parser()
    (tmp_path / "printed.yaml").write_text(parser.dump(parser.get_defaults(), skip_unset=False))
    again = classify_parser().parse_args(["--config", str(tmp_path / "printed.yaml")])
    again.pop("config")
    first = parser.parse_args([])
    first.pop("config")
    assert again == first
