"""The invariance error: zero for an exact network, of order one for a blind one, and no trace left behind."""

import math

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, PM, SQUARE_PLANE_GROUPS, Z2, regular, scalar
from eqgan.metrics.equivariance import eq_r, invariance_error, orbit_errors, rotation_errors
from eqgan.metrics.rotation import rotate_images, smooth_images
from eqgan.networks import ConvDiscriminator, MLPDiscriminator
from eqgan.nn import LiftingConv2d


@pytest.fixture
def x():
    return torch.rand(16, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1


class Score(nn.Module):
    """A function of images as a network, with one weight so that it has a precision."""

    def __init__(self, function):
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.ones(1))

    def forward(self, x):
        return self.function(x) * self.weight


@pytest.mark.parametrize("group", [g for g in SQUARE_PLANE_GROUPS.values() if g != Z2], ids=str)
def test_exact_networks(group, x):
    torch.manual_seed(0)
    network = ConvDiscriminator((1, 8, 8), group, width=8, spectral="bank")
    assert 0 <= invariance_error(network, x, group) < 1e-12


def test_a_blind_network(x):
    """Scores of a turned image are as far off as those of another image: E|a - b| / std is about 1.1."""
    torch.manual_seed(0)
    network = MLPDiscriminator((1, 8, 8), hidden=(32, 16))
    assert 0.5 < invariance_error(network, x, P4) < 2
    assert 0.5 < invariance_error(Score(lambda x: x[:, 0, 0, 0]), x, P4M) < 2


def test_from_its_definition(x):
    def corner(x):
        return x[:, 0, 0, 1]

    spread = corner(x.double()).std()
    moved = [corner(torch.rot90(x.double(), turns, (2, 3))) for turns in (1, 2, 3)]
    expected = torch.stack([(m - corner(x.double())).abs().mean() for m in moved]).mean() / spread
    assert invariance_error(Score(corner), x, P4) == pytest.approx(expected.item(), rel=1e-12)


def test_large_images_go_through_the_network_few_at_a_time():
    class Watched(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.batches = []

        def forward(self, x):
            self.batches.append(len(x))
            return (x * torch.linspace(0, 1, x.shape[-1], dtype=x.dtype)).sum((1, 2, 3))

    images, network = torch.rand(5, 1, 512, 512, dtype=torch.float64), Watched()
    error = invariance_error(network, images, P2)
    assert network.batches == [2, 2, 1, 2, 2, 1]
    scores, turned = Watched()(images), Watched()(images.rot90(2, (2, 3)))
    assert error == pytest.approx(((scores - turned).abs().mean() / scores.std()).item(), rel=1e-12)


def test_it_grows_with_what_breaks_the_symmetry(x):
    errors = [
        invariance_error(Score(lambda x, e=e: x.mean((1, 2, 3)) + e * x[:, 0, 0, 0]), x, P4)
        for e in (0.0, 1e-6, 1e-3, 0.1)
    ]
    assert errors[0] < 1e-12 < errors[1] < errors[2] < errors[3]


def test_only_the_groups_own_elements_are_tried(x):
    rows = Score(lambda x: x.mean(3)[:, 0, 0])  # blind to left and right, not to up and down
    assert invariance_error(rows, x, PM) < 1e-12
    assert invariance_error(rows, x, P2) > 0.5
    assert invariance_error(Score(lambda x: x[:, 0, 0, 0]), x, Z2) == 0


def test_vectors_are_averaged_over_entries_that_vary(x):
    def pair(x):
        return torch.stack([x.mean((1, 2, 3)), x[:, 0, 0, 0], torch.ones(len(x), dtype=x.dtype)], 1)

    alone = invariance_error(Score(lambda x: x[:, 0, 0, 0]), x, P4)
    assert invariance_error(Score(pair), x, P4) == pytest.approx(alone / 2, rel=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("training", [True, False])
def test_precision_mode_and_weights_are_put_back(dtype, training, x):
    torch.manual_seed(0)
    network = ConvDiscriminator((1, 8, 8), P4, width=4, spectral="bank").to(dtype).train(training)
    network.head.eval()  # one part on its own
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert invariance_error(network, x, P4) < 1e-12, "rounding of the network's own precision does not count"
    assert network.training == training
    assert not network.head.training
    after = network.state_dict()
    assert all(after[name].dtype == dtype and torch.equal(after[name], before[name]) for name in before)


def test_put_back_after_an_error_too(x):
    network = Score(lambda x: x.mean((1, 2, 3)) * 0).train()
    with pytest.raises(ValueError, match="gives every image the same score"):
        invariance_error(network, x, P4)
    assert network.weight.dtype == torch.float32
    assert network.training
    with pytest.raises(ValueError, match="at least 2 images to measure the spread of scores, got 1"):
        invariance_error(network, x[:1], P4)


# --- the orbit, element by element ------------------------------------------------------------------------


@pytest.fixture
def fine(x):
    return x.double()


@pytest.mark.parametrize("group", [P2, PM, P4, P4M], ids=str)
def test_equivariant_layers_follow_every_element(group, fine):
    torch.manual_seed(0)
    layer = LiftingConv2d(scalar(group, 1), regular(group, 3), 3).double()
    found = orbit_errors(layer, fine, group, layer.in_type, layer.out_type)
    assert [e.matrix for e in found] == [tuple(map(tuple, m)) for m in group.point_group.elements.tolist()]
    assert max(e.largest for e in found) < 1e-14
    assert max(e.error for e in found) < 1e-14


def test_an_element_that_breaks_it_is_told_from_one_that_does_not(fine):
    """Top minus bottom: mirrored left to right it stays, upside down it changes sign."""

    def score(x):
        return x[:, 0, :4].sum((1, 2)) - x[:, 0, 4:].sum((1, 2))

    found = {e.matrix: e for e in orbit_errors(score, fine, P4M)}
    assert found[((-1, 0), (0, 1))].largest < 1e-14
    flipped = found[((1, 0), (0, -1))]
    values = score(fine)
    spread = (values - values.mean()).square().mean().sqrt()
    assert flipped.error == pytest.approx((2 * values.square().mean().sqrt() / spread).item(), rel=1e-12)
    assert flipped.largest == pytest.approx(2, rel=1e-12)


def test_the_action_on_the_output_is_part_of_the_law(fine):
    """A map that leaves images in place is equivariant, not invariant."""
    assert max(e.error for e in orbit_errors(torch.tanh, fine, P4, None, scalar(P4, 1))) == 0
    assert min(e.error for e in orbit_errors(torch.tanh, fine, P4)[1:]) > 0.5


@pytest.mark.parametrize(
    ("network", "told"),
    [
        (lambda x: x.mean((1, 2, 3)) * 0 + 1, "does not depend on the image"),
        (lambda x: x.mean((1, 2, 3)) / 0, "not finite"),
        (lambda x: x.mean((1, 2, 3)) + torch.rand(len(x)), "draws random numbers"),
        (lambda x: x[:, 0], "expected an output of shape"),
        (lambda x: (x, x), "got tuple"),
        (lambda x: x.mean((1, 2, 3))[:3], "expected an output of shape"),
    ],
)
def test_outputs_of_which_nothing_can_be_said(network, told, fine):
    with pytest.raises(ValueError, match=told):
        orbit_errors(network, fine, P4)


def test_images_that_the_group_does_not_map_to_themselves(fine):
    with pytest.raises(ValueError, match="quarter turns"):
        orbit_errors(lambda x: x.mean((1, 2, 3)), fine[..., :6], P4)
    with pytest.raises(ValueError, match="at least 2 images"):
        orbit_errors(lambda x: x.mean((1, 2, 3)), fine[:1], P4)
    with pytest.raises(ValueError, match="the output has no such symmetry"):
        orbit_errors(lambda x: x[..., :4], fine, P4, None, scalar(P4, 1))


# --- any angle --------------------------------------------------------------------------------------------


@pytest.fixture
def smooth():
    return smooth_images(6, (1, 28, 28), torch.Generator().manual_seed(0))


def blur(x):
    """A radial filter: equivariant under every rotation, but for the lattice."""
    r = torch.arange(-4.0, 5.0).double()
    window = torch.exp(-(r[:, None] ** 2 + r[None] ** 2) / 4)
    return torch.nn.functional.conv2d(x, (window / window.sum())[None, None], padding=4)


def test_a_radial_filter_is_equivariant_under_all_rotations(smooth):
    found = rotation_errors(blur, smooth, (10.0, 45.0, 90.0), invariant=False)
    assert max(r.error for r in found) < 2e-2
    assert min(r.psnr for r in found) > 45
    assert found[2].error < 1e-12
    assert eq_r(found) == pytest.approx(-10 * math.log10(sum(10 ** (-r.psnr / 10) for r in found) / 3))


def test_a_derivative_is_not(smooth):
    found = rotation_errors(lambda x: x.roll(1, -1) - x, smooth, (45.0, 90.0), invariant=False)
    assert min(r.error for r in found) > 0.3
    assert max(r.psnr for r in found) < 25


def test_psnr_from_its_definition(smooth):
    """20 log10(range / root mean square over the pixels that can be compared)."""

    def network(x):
        return x.flip(-1)

    (found,) = rotation_errors(network, smooth, (30.0,), invariant=False, value_range=2.0)
    expected, mask = rotate_images(network(smooth), 30.0)
    deviation = (network(rotate_images(smooth, 30.0)[0]) - expected)[..., mask]
    assert found.psnr == pytest.approx(10 * math.log10(4 / deviation.square().mean().item()), rel=1e-12)
    assert found.pixels == mask.double().mean().item()


def test_invariance_under_rotations(smooth):
    def energy(x):
        return x.square().sum((1, 2, 3))

    def moment(x):
        return (x * torch.linspace(0, 1, 28)).sum((1, 2, 3))

    assert max(r.error for r in rotation_errors(energy, smooth, (20.0, 45.0), invariant=True)) < 0.03
    found = rotation_errors(moment, smooth, (20.0, 45.0), invariant=True)
    assert min(r.error for r in found) > 0.1
    assert eq_r(found) is None
