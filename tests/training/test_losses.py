"""Losses against their definitions in plain Python, closed forms, and the divergences they estimate."""

import math

import pytest
import torch
from torch import nn

from eqgan.training.losses import (
    GANLoss,
    HingeLoss,
    LeastSquaresLoss,
    LipschitzAlphaLoss,
    MinimaxLoss,
    NonSaturatingLoss,
    RelativisticAverageLoss,
    RelativisticPairingLoss,
    WassersteinLoss,
)
from tests.oracles import losses as oracle

LOSSES = [
    MinimaxLoss(),
    NonSaturatingLoss(),
    HingeLoss(),
    LeastSquaresLoss(),
    WassersteinLoss(),
    RelativisticAverageLoss(),
    RelativisticPairingLoss(),
    LipschitzAlphaLoss(),
]
EVERY = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def softplus(x):
    return math.log1p(math.exp(x))


@EVERY
def test_from_its_definition(loss):
    """And the gradients from differences of it."""
    real, fake = [2.0, -0.5, 0.25, 1.5], [-1.25, 3.0, 0.5, 0.75]
    kind = type(loss).__name__
    for role in ("discriminator", "generator"):
        r, f = tensor(*real), tensor(*fake)
        value = loss.discriminator(r, f) if role == "discriminator" else loss.generator(f, r)
        definition = getattr(oracle, role)
        assert value.item() == pytest.approx(definition(kind, real, fake), rel=1e-8)
        value.backward()
        for which, points in enumerate((r, f)):
            for i in range(len(real)):
                moved = [list(real), list(fake)], [list(real), list(fake)]
                moved[0][which][i] += 1e-4
                moved[1][which][i] -= 1e-4
                slope = (definition(kind, *moved[0]) - definition(kind, *moved[1])) / 2e-4
                found = 0.0 if points.grad is None else points.grad[i].item()
                assert found == pytest.approx(slope, abs=1e-6), (role, which, i)


@EVERY
def test_which_generators_see_reals(loss):
    """Exactly those whose loss depends on them say so, and complain without."""
    real, fake = tensor(0.3, -0.2), tensor(0.2, 0.4)
    if loss.generator_sees_reals:
        with pytest.raises(ValueError, match="needs the scores of real images"):
            loss.generator(fake)
        assert loss.generator(fake, real) != loss.generator(fake, 2 * real)
    else:
        assert torch.equal(loss.generator(fake), loss.generator(fake, real))


def as_samples(shares):
    """Scores repeated so that their mean is over the distribution with these whole shares."""

    def repeat(score):
        return torch.repeat_interleave(score, torch.tensor(shares))

    return repeat


def best(loss, p, q):
    """The least loss of a discriminator that may score each of the points as it likes."""
    score = torch.zeros(len(p), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([score], max_iter=500, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        value = loss.discriminator(as_samples(p)(score), as_samples(q)(score))
        value.backward()
        return value

    optimiser.step(closure)
    return closure().item()


@pytest.mark.parametrize("alpha", [1.5, 2.0, 3.0])
def test_the_best_discriminator_of_the_alpha_loss_measures_the_alpha_divergence(alpha):
    p, q = (5, 2, 1), (2, 2, 4)
    of_data, of_samples = [n / 8 for n in p], [n / 8 for n in q]
    expected = oracle.divergence(lambda x: oracle.alpha_function(alpha, x), of_data, of_samples)
    assert -best(LipschitzAlphaLoss(alpha), p, q) == pytest.approx(expected, rel=1e-6)
    assert -best(LipschitzAlphaLoss(alpha), q, q) == pytest.approx(0, abs=1e-9)


def test_the_best_discriminator_of_the_minimax_loss_measures_jensen_and_shannons():
    p, q = (5, 2, 1), (2, 2, 4)
    mixed = [(a + b) / 16 for a, b in zip(p, q)]
    shannon = sum(sum(n / 8 * math.log(n / 8 / m) for n, m in zip(shares, mixed)) / 2 for shares in (p, q))
    assert best(MinimaxLoss(), p, q) == pytest.approx(2 * math.log(2) - 2 * shannon, rel=1e-6)


def test_the_best_discriminator_of_least_squares_is_the_share_of_the_data():
    p, q = (5, 2, 1), (2, 2, 4)
    expected = 0.5 * sum(a / 8 * (b / (a + b)) ** 2 + b / 8 * (a / (a + b)) ** 2 for a, b in zip(p, q))
    assert best(LeastSquaresLoss(), p, q) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.25, 2.0, 4.0])
def test_the_conjugate_is_legendres(alpha):
    y = tensor(-2.0, -0.1, 0.0, 0.3, 1.0, 2.5)
    expected = [oracle.conjugate(lambda x: oracle.alpha_function(alpha, x), v) for v in y.tolist()]
    assert LipschitzAlphaLoss(alpha).conjugate(y).tolist() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("alpha", [1.0, 0.5, -2.0])
def test_alpha_out_of_range(alpha):
    with pytest.raises(ValueError, match=f"alpha above 1, got {alpha}"):
        LipschitzAlphaLoss(alpha)


def test_non_saturating_on_small_numbers():
    loss = NonSaturatingLoss()
    real, fake = tensor(2.0, 0.0), tensor(-1.0, 3.0)
    expected = (softplus(-2) + softplus(0)) / 2 + (softplus(-1) + softplus(3)) / 2
    assert loss.discriminator(real, fake).item() == pytest.approx(expected, rel=1e-12)
    assert loss.generator(fake).item() == pytest.approx((softplus(1) + softplus(-3)) / 2, rel=1e-12)


def test_non_saturating_is_binary_cross_entropy():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 16, dtype=torch.float64)
    entropy = nn.BCEWithLogitsLoss()
    expected = entropy(real, torch.ones_like(real)) + entropy(fake, torch.zeros_like(fake))
    torch.testing.assert_close(NonSaturatingLoss().discriminator(real, fake), expected)
    torch.testing.assert_close(NonSaturatingLoss().generator(fake), entropy(fake, torch.ones_like(fake)))


def test_hinge_on_small_numbers():
    real, fake = tensor(2.0, 0.25), tensor(-3.0, 0.5)
    assert HingeLoss().discriminator(real, fake).item() == (0 + 0.75) / 2 + (0 + 1.5) / 2
    assert HingeLoss().generator(fake).item() == (3 - 0.5) / 2


def test_hinge_is_content_outside_the_margin():
    real, fake = tensor(1.5, 0.0), tensor(-1.5, 0.0)
    HingeLoss().discriminator(real, fake).backward()
    assert real.grad.tolist() == [0, -0.5]
    assert fake.grad.tolist() == [0, 0.5]


def test_relativistic_average_on_small_numbers():
    real, fake = tensor(2.0, 0.0), tensor(-1.0, 3.0)  # means 1 and 1
    expected = (softplus(1 - 2) + softplus(1 - 0)) / 2 + (softplus(-1 - 1) + softplus(3 - 1)) / 2
    assert RelativisticAverageLoss().discriminator(real, fake).item() == pytest.approx(expected, rel=1e-12)


def test_relativistic_average_is_symmetric_and_sees_differences_only():
    torch.manual_seed(0)
    real, fake = torch.randn(2, 8, dtype=torch.float64)
    loss = RelativisticAverageLoss()
    assert loss.generator_sees_reals
    assert torch.equal(loss.generator(fake, real), loss.discriminator(fake, real))
    shifted = loss.discriminator(real + 5, fake + 5)
    torch.testing.assert_close(shifted, loss.discriminator(real, fake))
    assert not torch.isclose(loss.discriminator(real + 5, fake), loss.discriminator(real, fake))
    with pytest.raises(ValueError, match="needs the scores of real images"):
        loss.generator(fake)


@EVERY
def test_gradients_point_the_right_way(loss):
    """The discriminator would raise the scores of reals and lower those of fakes; the generator raise its."""
    real, fake = tensor(0.3, -0.2, 0.1), tensor(0.2, 0.4, 0.1)
    loss.discriminator(real, fake).backward()
    assert (real.grad < 0).all()
    assert (fake.grad > 0).all()
    real.grad = fake.grad = None
    loss.generator(fake, real if loss.generator_sees_reals else None).backward()
    assert (fake.grad < 0).all()


@EVERY
def test_extreme_scores_stay_finite(loss):
    real, fake = tensor(1e4, -1e4), tensor(1e4, -1e4)
    for value in (loss.discriminator(real, fake), loss.generator(fake, real)):
        assert value.isfinite()
        value.backward()
    assert real.grad.isfinite().all()
    assert fake.grad.isfinite().all()


@EVERY
def test_losses_are_lowest_when_the_discriminator_is_right(loss):
    low, high = tensor(0.0, -0.1), tensor(1.0, 1.1)
    assert loss.discriminator(high, low) < loss.discriminator(low, low) < loss.discriminator(low, high)


def test_a_loss_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        GANLoss()
