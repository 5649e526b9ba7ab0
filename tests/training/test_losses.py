"""Losses and the penalty against closed forms: small numbers, known gradients, double backward."""

import math

import pytest
import torch
from torch import nn

from eqgan.groups import P4
from eqgan.training.losses import (
    GANLoss,
    HingeLoss,
    NonSaturatingLoss,
    R1Penalty,
    RelativisticAverageLoss,
)
from tests.networks.cases import discriminator, images

LOSSES = [NonSaturatingLoss(), HingeLoss(), RelativisticAverageLoss()]
EVERY = pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64, requires_grad=True)


def softplus(x):
    return math.log1p(math.exp(x))


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
    real, fake = tensor(0.3, -0.2, 0.1), tensor(0.2, 0.4, -0.1)
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
    low, high = tensor(-5.0, -6.0), tensor(5.0, 6.0)
    assert loss.discriminator(high, low) < loss.discriminator(low, low) < loss.discriminator(low, high)


def test_a_loss_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        GANLoss()


# --- the penalty -----------------------------------------------------------------------------------------


class Linear(nn.Module):
    """D(x) = a . x, whose gradient is a everywhere."""

    def __init__(self, a):
        super().__init__()
        self.a = nn.Parameter(a)

    def forward(self, x):
        return (x * self.a).sum((1, 2, 3))


class Quadratic(Linear):
    """D(x) = sum a x^2, whose gradient is 2 a x."""

    def forward(self, x):
        return (x.square() * self.a).sum((1, 2, 3))


@pytest.fixture
def x():
    return torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def a():
    return torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_r1_of_a_linear_discriminator(a, x):
    network = Linear(a)
    value = R1Penalty(gamma=3.0, every=1)(network, x)
    torch.testing.assert_close(value, 1.5 * a.square().sum())
    value.backward()
    torch.testing.assert_close(network.a.grad, 3 * a)  # d/da (3/2) |a|^2


def test_r1_of_a_quadratic_discriminator(a, x):
    network = Quadratic(a)
    value = R1Penalty(gamma=0.5, every=1)(network, x)
    torch.testing.assert_close(value, 0.25 * (2 * a * x).square().sum((1, 2, 3)).mean())
    value.backward()
    torch.testing.assert_close(network.a.grad, 2 * a * x.square().mean(0))


def test_r1_is_a_mean_over_images_whatever_their_number(a, x):
    penalty = R1Penalty(gamma=1.0, every=1)
    once, twice = penalty(Quadratic(a), x), penalty(Quadratic(a), torch.cat([x, x]))
    torch.testing.assert_close(once, twice)


def test_lazy_steps_make_up_for_those_left_out(a, x):
    eager, lazy = R1Penalty(gamma=0.7, every=1), R1Penalty(gamma=0.7, every=4)
    assert [lazy.due(step) for step in range(9)] == [step % 4 == 0 for step in range(9)]
    assert all(eager.due(step) for step in range(9))
    torch.testing.assert_close(lazy(Linear(a), x), 4 * eager(Linear(a), x))
    assert not any(R1Penalty(gamma=0.0, every=1).due(step) for step in range(9))


def test_r1_leaves_the_images_alone(a, x):
    images_of_a_graph = x.clone().requires_grad_()
    R1Penalty(gamma=1.0, every=1)(Quadratic(a), images_of_a_graph).backward()
    assert images_of_a_graph.grad is None


class WithWeights(nn.Module):
    """A network that computes with other weights than its own."""

    def __init__(self, network, values):
        super().__init__()
        self.network, self.values = network, values

    def forward(self, x):
        return torch.func.functional_call(self.network, self.values, (x,))


@pytest.mark.parametrize("spectral", [None, "bank"])
@pytest.mark.parametrize("body", ["conv", "strided"])
def test_double_backward_through_a_group_discriminator(body, spectral):
    """Mean pool, so that no tie of a maximum stands in the way of finite differences."""
    network = discriminator(body, P4, width=2, spectral=spectral, pool="mean").eval()
    real = images(network, 2)
    names, weights = zip(*((n, p.detach()) for n, p in network.named_parameters() if p.ndim > 1))

    def penalised(*values):
        return R1Penalty(gamma=1.0, every=1)(WithWeights(network, dict(zip(names, values))), real)

    points = [w.clone().requires_grad_() for w in weights]
    assert penalised(*points) > 0
    assert torch.autograd.gradcheck(penalised, points, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize(("gamma", "every"), [(-0.1, 1), (1.0, 0)])
def test_bad_arguments(gamma, every):
    with pytest.raises(ValueError, match=r"gamma >= 0 and every >= 1, got gamma="):
        R1Penalty(gamma, every)
