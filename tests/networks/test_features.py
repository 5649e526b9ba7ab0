"""The shipped feature network: the file that was trained, and one that sees orientation."""

import hashlib
from importlib.resources import files

import pytest
import torch

from eqgan.data.sources import load_images
from eqgan.groups import P4
from eqgan.metrics import FeatureExtractor
from eqgan.metrics.equivariance import invariance_error
from eqgan.networks import features
from eqgan.networks.features import FeatureNetwork, feature_network, feature_network_record


@pytest.fixture(scope="module")
def digits():
    images = load_images("digits", split="test")
    return images.images.float().div(127.5).sub(1), images.labels


def test_the_file_is_the_one_that_was_recorded():
    content = (files("eqgan.networks") / "feature_network.safetensors").read_bytes()
    assert hashlib.sha256(content).hexdigest() == feature_network_record()["sha256"]
    assert len(content) < 1_000_000


def test_what_is_known_of_it_is_recorded():
    record = feature_network_record()
    assert record["features"] == FeatureNetwork.feature_dim == 64
    assert 0.95 < record["test_accuracy"] <= 1
    assert 0 < record["test_median_angle_error_degrees"] < 30
    assert record["name"]
    assert "Rotated MNIST" in record["trained_on"]


def test_scores_name_it_by_one_hash():
    """The one in docs/fid.md, in the table of every run and in every record."""
    told = FeatureExtractor.from_module(feature_network(), "digits").describe()
    assert told["sha256"].startswith("513524cc")


def test_it_is_frozen_and_shared():
    network = feature_network()
    assert network is feature_network()
    assert not network.training
    assert not any(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b[:-1] + bytes([b[-1] ^ 1]), lambda b: b""])
def test_a_damaged_file_is_refused(damage, tmp_path, monkeypatch):
    content = (files("eqgan.networks") / "feature_network.safetensors").read_bytes()
    (tmp_path / "feature_network.safetensors").write_bytes(damage(content))
    (tmp_path / "feature_network.json").write_bytes(
        (files("eqgan.networks") / "feature_network.json").read_bytes()
    )
    monkeypatch.setattr(features, "files", lambda _package: tmp_path)
    with pytest.raises(RuntimeError, match=r"file is damaged: expected sha256 .*Reinstall eqgan"):
        feature_network.__wrapped__()
    (tmp_path / "feature_network.safetensors").write_bytes(content)
    assert isinstance(feature_network.__wrapped__(), FeatureNetwork)


def test_it_can_tell_digits_it_was_not_trained_on(digits):
    images, labels = digits
    logits, _ = feature_network().heads(feature_network()(images))
    assert (logits.argmax(1) == labels).float().mean() > 0.6  # of scikit-learn's; 0.1 by chance


def test_it_sees_orientation(digits):
    """Not invariant on purpose: a generator that drew every digit at one angle would be seen."""
    images, _ = digits
    network = feature_network()
    assert invariance_error(network, images[:64], P4) > 0.5
    angles = []
    for turns in range(2):
        cosine, sine = network.heads(network(torch.rot90(images, turns, (2, 3))))[1].unbind(1)
        angles.append(torch.atan2(sine, cosine))
    turned = torch.rad2deg(torch.atan2((angles[1] - angles[0]).sin(), (angles[1] - angles[0]).cos()))
    assert 60 < turned.median().abs() < 120, "a quarter turn should read as about 90 degrees"
