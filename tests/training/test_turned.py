"""Classifiers that answer with the mean over several orientations of an image."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from eqgan.groups import P2, P2MM, P4, P4M, PM, Z2
from eqgan.metrics.equivariance import invariance_error
from eqgan.networks import P4CNNClassifier
from eqgan.training.classification import Classification
from eqgan.training.load import load_classifier
from eqgan.training.turned import TurnedClassifier, averaged_over_turns, distinct_turns
from tests.oracles.rotation import rotate_slowly
from tests.training.classifiers import squares
from tests.training.runs import refused

SHAPE = (1, 22, 22)


def classifier(group):
    torch.manual_seed(0)
    return P4CNNClassifier(SHAPE, 3, group, width=8).double().eval()


def images(count=6):
    """Smooth, with a black border: nothing is lost in the corners, and little between the pixels."""
    torch.manual_seed(1)
    coarse = F.pad(2 * torch.rand(count, 1, 4, 4, dtype=torch.float64) - 1, (2, 2, 2, 2), value=-1.0)
    return F.interpolate(coarse, size=(22, 22), mode="bilinear")


def turned_by_hand(image, degrees):
    """Pixel by pixel; outside is black, which is 0 there and -1 here."""
    return torch.from_numpy(rotate_slowly(image[0].numpy() + 1, degrees))[None] - 1


@pytest.mark.parametrize("group", [Z2, P2, P4, P4M, PM, P2MM], ids=str)
@pytest.mark.parametrize("turns", [1, 2, 3, 4, 6, 8, 16])
def test_it_is_the_mean_over_every_turn(group, turns):
    """Also over those that are left out since the network cannot tell them apart."""
    network, x = classifier(group), images(2)
    whole = [
        network(torch.stack([turned_by_hand(image, 360 * k / turns) for image in x])) for k in range(turns)
    ]
    got = averaged_over_turns(network, turns)(x)
    torch.testing.assert_close(got, torch.stack(whole).mean(0), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("group", [P4, P4M, P2MM], ids=str)
def test_the_groups_own_law_stays_exact_and_the_others_come_near(group):
    network, x = classifier(group), images()
    turned = TurnedClassifier(network, 16)
    assert invariance_error(turned, x, group) < 1e-12
    eighth = torch.stack([turned_by_hand(image, 45.0) for image in x])
    with torch.no_grad():
        before, after = ((f(eighth) - f(x)).norm() / f(x).std() for f in (network, turned))
    assert after < 0.5 * before


def test_a_turn_that_the_group_knows_costs_nothing():
    network = classifier(P4)
    assert averaged_over_turns(network, 4) is network
    assert len(distinct_turns(P4M, 16)) == 4
    with pytest.raises(ValueError, match="turns: expected at least 1, got 0"):
        Classification(network, turns=0)


def test_a_run_is_judged_kept_and_asked_with_its_turns(small_place):
    """The averaged weights, too; and the score of one turn stands beside."""
    summary = small_place.train("--name", "run", "--epochs", "1", **{"fit.turns": 8})
    assert summary["turns"] == 8
    network = load_classifier(small_place.logs("run"))
    assert isinstance(network, TurnedClassifier)
    assert network.degrees == (0.0, 45.0)
    assert network.class_names == tuple(summary["classes"])
    with np.load(small_place.root / "squares.npz") as data:
        x = torch.from_numpy(data["test_images"]).permute(0, 3, 1, 2) / 127.5 - 1
        labels = torch.from_numpy(data["test_labels"])
    alone = load_classifier(small_place.logs("run"), turns=1)
    assert not isinstance(alone, TurnedClassifier)
    for asked, key in ((network, "test"), (alone, "test_unturned")):
        with torch.no_grad():
            error = (asked(x).argmax(1) != labels).double().mean().item()
        assert summary[key]["squares"]["error"] == pytest.approx(error)


def test_no_turns(small_place, capsys):
    squares(small_place.root / "squares.npz")
    told = refused(small_place, lambda: small_place.train("--fit.turns", "0"), capsys)
    assert told == "turns: expected at least 1, got 0"
