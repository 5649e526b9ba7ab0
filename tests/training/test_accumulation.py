"""A batch in micro-batches is the batch for every loss, but for batch norm and spectral norm."""

import pytest
import torch

from eqgan.data.augment import GroupAugmentation
from eqgan.groups import P4
from eqgan.networks import ConvDiscriminator, ConvGenerator, VanillaGenerator
from eqgan.training import losses
from eqgan.training.accumulation import Draws
from eqgan.training.module import GAN
from eqgan.training.penalties import R1R2Penalty
from tests.training.runs import refused, require_same_run
from tests.training.test_module import SHAPE, fit, loader

LOSSES = {
    "ns": losses.NonSaturatingLoss,
    "minimax": losses.MinimaxLoss,
    "hinge": losses.HingeLoss,
    "ls": losses.LeastSquaresLoss,
    "wasserstein": losses.WassersteinLoss,
    "ra": losses.RelativisticAverageLoss,
    "rp": losses.RelativisticPairingLoss,
    "alpha": losses.LipschitzAlphaLoss,
}


def trained(accumulate, loss, classes=0, norms=False, augmentation=None, steps=2, **options):
    torch.manual_seed(5)
    known = {"num_classes": classes} if classes else {}
    if norms:
        generator = ConvGenerator(SHAPE, latent_dim=6, width=2, **known)
    else:
        generator = VanillaGenerator(SHAPE, latent_dim=6, **known)
    spectral = "bank" if norms else None
    discriminator = ConvDiscriminator(SHAPE, P4, width=4, spectral=spectral, **known)
    gan = GAN(
        generator,
        discriminator,
        loss,
        R1R2Penalty(gamma=1.0, every=2),
        augmentation,
        discriminator_steps=steps,
        accumulate=accumulate,
        **options,
    )
    torch.manual_seed(9)
    _, rows = fit(gan, loader(batches=4, size=12, classes=classes), precision="64-true")
    return gan, rows


def furthest(ours, theirs):
    pairs = zip(ours.state_dict().values(), theirs.state_dict().values())
    return max((a.double() - b.double()).abs().max().item() for a, b in pairs)


@pytest.mark.parametrize("name", LOSSES)
def test_a_batch_in_parts_is_the_batch(name):
    (ours, rows), (theirs, parts) = (trained(n, LOSSES[name]()) for n in (1, 3))
    assert furthest(ours, theirs) < 2e-6  # scores are float32
    for row, other in zip(rows, parts):
        assert row == pytest.approx(other, rel=1e-4, abs=1e-6)


def test_with_labels():
    (ours, rows), (theirs, parts) = (trained(n, losses.HingeLoss(), classes=3) for n in (1, 4))
    assert furthest(ours, theirs) < 2e-6
    assert [row.keys() for row in rows] == [row.keys() for row in parts]


def test_a_loss_that_couples_scores_must_say_so():
    """Seen to fail: the average over a micro-batch is another one."""
    loss = losses.RelativisticAverageLoss()
    loss.couples_scores = False
    (ours, _), (theirs, _) = (trained(n, loss) for n in (1, 3))
    assert furthest(ours, theirs) > 1e-4
    assert losses.GANLoss.couples_scores, "a loss of one's own is taken to, until it says otherwise"


def test_with_norms_and_augmentation_it_is_another_game_as_good():
    for loss in (losses.RelativisticAverageLoss(), losses.RelativisticPairingLoss()):
        gan, rows = trained(3, loss, norms=True, augmentation=GroupAugmentation(P4), steps=1)
        assert all(torch.tensor(list(row.values())).isfinite().all() for row in rows)
        assert int(gan.discriminator_step) == len(rows) == 4
        assert all("g_loss" in row for row in rows)


def test_draws_come_again():
    draws = Draws(torch.device("cpu"))
    first = torch.rand(3)
    after = Draws(torch.device("cpu"))
    with draws.again():
        assert torch.equal(torch.rand(3), first)
    next_one = torch.rand(3)
    with after.again():
        assert torch.equal(torch.rand(3), next_one), "the stream goes on as if nothing had been repeated"


def test_a_run_in_parts_resumes_exactly(place):
    options = {"gan__accumulate": 2, "augment": "diff", "evaluation__samples": 32, "fraction": 0.3}
    place.train("--name", "whole", "--epochs", "2", **options)
    place.train("--name", "halved", "--epochs", "1", **options)
    place.resume("halved", "--epochs", "2")
    require_same_run(place, "halved", "whole")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--accumulate", "0"), "--accumulate: expected at least 1, got 0"),
        (("--accumulate", "3"), "--batch-size 128: expected a multiple of 3"),
    ],
)
def test_parts_that_cannot_be(words, told, place, capsys):
    assert told in refused(place, lambda: place.train(*words), capsys)
