"""Penalties against closed forms and slow re-derivations: known gradients, differences, double backward."""

import copy

import pytest
import torch
from torch import nn

from eqgan.data.augment import Augmentation, GroupAugmentation, RandomShift, shift
from eqgan.groups import P4, P4M
from eqgan.training.penalties import (
    ConsistencyPenalty,
    GradientPenalty,
    LipschitzPenalty,
    NoPenalty,
    Penalty,
    R1Penalty,
    R1R2Penalty,
    R2Penalty,
)
from tests.networks.cases import discriminator, images


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


@pytest.fixture
def fake():
    return torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_r2_is_r1_of_the_generated_images(a, x, fake):
    r1, r2 = R1Penalty(0.5, 1), R2Penalty(0.5, 1)
    torch.testing.assert_close(r2(Quadratic(a), x, fake), r1(Quadratic(a), fake))
    both = R1R2Penalty(0.5, 1)(Quadratic(a), x, fake)
    torch.testing.assert_close(both, r1(Quadratic(a), x) + r2(Quadratic(a), x, fake))


@pytest.mark.parametrize("length", [0.25, 1.0, 3.0])
def test_gradient_penalties_of_a_linear_discriminator(a, x, fake, length):
    """Whose gradient has one length everywhere."""
    a = length * a / a.norm()
    cases = {
        GradientPenalty(10.0): (10 * (length - 1) ** 2, 20 * (length - 1) * a / length),
        GradientPenalty(10.0, one_sided=True): (
            10 * max(0, length - 1) ** 2,
            20 * max(0, length - 1) * a / length,
        ),
        LipschitzPenalty(10.0): (10 * max(0, length**2 - 1), 20 * a if length > 1 else 0 * a),
    }
    for penalty, (expected, slope) in cases.items():
        network = Linear(a.clone())
        value = penalty(network, x, fake)
        assert value.item() == pytest.approx(expected, abs=1e-12)
        value.backward()
        if length != 1:
            torch.testing.assert_close(network.a.grad, slope)


class Remembering(Quadratic):
    """Keeps the images it was shown."""

    def forward(self, x):
        self.shown = x.detach()
        return super().forward(x)


@pytest.mark.parametrize(
    "penalty", [GradientPenalty(2.0), LipschitzPenalty(2.0)], ids=lambda p: type(p).__name__
)
def test_points_are_uniform_between_a_real_and_a_generated_image(penalty, a, x, fake):
    network = Remembering(a)
    torch.manual_seed(0)
    value = penalty(network, x, fake)
    share = (network.shown - x) / (fake - x)
    share = share.flatten(1)
    torch.testing.assert_close(share, share[:, :1].expand_as(share))
    assert (share >= 0).all()
    assert (share <= 1).all()
    assert share[:, 0].unique().numel() == len(x), "each pair has a point of its own"
    lengths = (2 * a * network.shown).square().sum((1, 2, 3)).sqrt()
    excess = (lengths - 1).square() if isinstance(penalty, GradientPenalty) else (lengths**2 - 1).clamp_min(0)
    torch.testing.assert_close(value, 2 * excess.mean())
    many = Remembering(torch.ones(1, 1, 1, dtype=torch.float64))
    ends = torch.zeros(4000, 1, 1, 1, dtype=torch.float64), torch.ones(4000, 1, 1, 1, dtype=torch.float64)
    penalty(many, *ends)
    assert (many.shown.flatten().sort().values - torch.linspace(0, 1, 4000)).abs().max() < 0.03
    torch.manual_seed(0)
    assert torch.equal(penalty(network, x, fake), value), (
        "the global stream decides: a resumed run repeats it"
    )


def test_a_gradient_of_zero_is_no_trouble(x, fake):
    for penalty in (GradientPenalty(), GradientPenalty(one_sided=True), LipschitzPenalty()):
        network = Linear(torch.zeros(2, 3, 3, dtype=torch.float64))
        penalty(network, x, fake).backward()
        assert network.a.grad.isfinite().all()


class Down(Augmentation):
    """By one row, always."""

    def __call__(self, x):
        one = torch.ones(len(x), dtype=torch.long)
        return shift(x, one, 0 * one)


def test_consistency_from_its_definition(a, x, fake):
    def by_hand(images):
        moved = torch.full_like(images, -1.0)
        moved[:, :, 1:] = images[:, :, :-1]
        return sum((a * (one - other)).sum() ** 2 for one, other in zip(images, moved)) / len(images)

    network = Linear(a)
    torch.testing.assert_close(ConsistencyPenalty(Down(), 3.0)(network, x, fake).detach(), 3 * by_hand(x))
    value = ConsistencyPenalty(Down(), 3.0, balanced=True)(network, x, fake)
    torch.testing.assert_close(value.detach(), 3 * (by_hand(x) + by_hand(fake)))
    value.backward()
    assert network.a.grad.any()


def test_an_invariant_discriminator_is_consistent_under_its_own_group():
    """And under no more: the penalty asks for what the network has, and for what it lacks."""
    network = discriminator("conv", P4, width=4).eval()
    x = images(network, 6)
    assert ConsistencyPenalty(GroupAugmentation(P4))(network, x) < 1e-20
    assert ConsistencyPenalty(GroupAugmentation(P4M))(network, x) > 1e-9


EVERY = [
    R1Penalty(0.5, 1),
    R2Penalty(0.5, 1),
    R1R2Penalty(0.5, 1),
    GradientPenalty(0.5),
    GradientPenalty(0.5, one_sided=True),
    LipschitzPenalty(0.5),
    ConsistencyPenalty(RandomShift(1), 0.5),
    ConsistencyPenalty(RandomShift(1), 0.5, balanced=True),
]


@pytest.mark.parametrize("penalty", EVERY, ids=lambda p: type(p).__name__)
def test_every_penalty_is_lazy_if_asked_and_leaves_the_images_alone(penalty, a, x, fake):
    lazy = copy.deepcopy(penalty)
    lazy.every = 4
    assert [lazy.due(step) for step in range(9)] == [step % 4 == 0 for step in range(9)]
    values = []
    for one in (penalty, lazy):
        torch.manual_seed(0)
        r, f = x.clone().requires_grad_(), fake.clone().requires_grad_()
        values.append(one(Quadratic(5 * a), r, f))
        values[-1].backward()
        if not isinstance(one, ConsistencyPenalty):
            assert r.grad is f.grad is None
    assert values[0] > 0
    torch.testing.assert_close(values[1], 4 * values[0])


@pytest.mark.parametrize("penalty", [*EVERY[1:6], EVERY[7]], ids=lambda p: type(p).__name__)
def test_generated_images_that_lack(penalty, a, x):
    with pytest.raises(ValueError, match=f"{type(penalty).__name__} needs generated images"):
        penalty(Linear(a), x)


def test_no_penalty_is_never_due(a, x):
    assert not any(NoPenalty().due(step) for step in range(3))
    assert NoPenalty()(Linear(a), x) == 0


def test_a_penalty_is_abstract():
    with pytest.raises(TypeError, match="abstract"):
        Penalty(1.0, 1)


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
@pytest.mark.parametrize("penalty", EVERY, ids=lambda p: type(p).__name__)
def test_double_backward_through_a_group_discriminator(body, spectral, penalty):
    """Mean pool, so that no tie of a maximum stands in the way of finite differences."""
    network = discriminator(body, P4, width=2, spectral=spectral, pool="mean").eval()
    real, fake = images(network, 2), images(network, 2, seed=8)
    weights = {n: p.detach() for n, p in network.named_parameters() if p.ndim > 1}
    steep = 1000.0 if isinstance(penalty, LipschitzPenalty) or getattr(penalty, "one_sided", False) else 1.0

    def penalised(*values):
        torch.manual_seed(0)
        weighted = WithWeights(network, dict(zip(weights, values)))
        return penalty(lambda x: steep * weighted(x), real, fake)

    points = [w.clone().requires_grad_() for w in weights.values()]
    assert penalised(*points) > 0
    assert torch.autograd.gradcheck(penalised, points, fast_mode=True, atol=1e-6)


@pytest.mark.parametrize(("gamma", "every"), [(-0.1, 1), (1.0, 0)])
def test_bad_arguments(gamma, every):
    with pytest.raises(ValueError, match=r"gamma >= 0 and every >= 1, got gamma="):
        R1Penalty(gamma, every)


@pytest.mark.parametrize("kind", [GradientPenalty, LipschitzPenalty])
def test_bad_weights(kind):
    with pytest.raises(ValueError, match=r"weight >= 0 and every >= 1, got weight=-1.0, every=1"):
        kind(-1.0)
