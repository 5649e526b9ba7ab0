"""The invariance error: zero for an exact network, of order one for a blind one, and no trace left behind."""

import pytest
import torch
from torch import nn

from eqgan.groups import P2, P4, P4M, PM, SQUARE_PLANE_GROUPS, Z2
from eqgan.metrics.equivariance import invariance_error
from eqgan.networks import ConvDiscriminator, MLPDiscriminator


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
