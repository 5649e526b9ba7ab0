import pytest
import torch
from torch import nn

from eqgan.groups import P4, P4M, PLANE_GROUPS
from eqgan.metrics import FeatureExtractor, FeatureStatistics, frechet_distance, orbit_distance

PLAIN = FeatureExtractor.from_module(nn.Flatten(), "pixels")


def bars(count):
    """Noisy images with a bar at the top: one orientation only."""
    x = 0.3 * torch.randn(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    x[:, :, 0] += 0.5
    return x


def test_one_orientation_is_seen_and_all_are_not():
    one = bars(800)
    every = torch.cat([part.rot90(k, (2, 3)) for k, part in enumerate(one.split(200))])
    assert orbit_distance(one, PLAIN, P4) > 1
    assert orbit_distance(every, PLAIN, P4) < 0.2


def test_a_whole_orbit_is_at_distance_zero():
    x = bars(50)
    orbit = torch.cat([y for k in range(4) for y in (x.rot90(k, (2, 3)), x.rot90(k, (2, 3)).flip(3))])
    assert orbit_distance(orbit, PLAIN, P4M) == pytest.approx(0, abs=1e-6)


def test_the_mean_over_the_turns():
    x = bars(60)
    still = FeatureStatistics.from_features(x.flatten(1))
    turns = [
        frechet_distance(still, FeatureStatistics.from_features(x.rot90(k, (2, 3)).flatten(1)))
        for k in (1, 2, 3)
    ]
    assert orbit_distance(x, PLAIN, P4) == pytest.approx(sum(turns).item() / 3, rel=1e-9)


def test_an_invariant_network_sees_nothing():
    class Mean(nn.Module):
        def forward(self, x):
            return torch.stack([x.mean((1, 2, 3)), x.square().mean((1, 2, 3))], 1)

    blind = FeatureExtractor.from_module(Mean(), "means")
    assert orbit_distance(bars(100), blind, P4) == pytest.approx(0, abs=1e-6)


def test_the_trivial_group_is_refused():
    with pytest.raises(ValueError, match="moves nothing"):
        orbit_distance(bars(10), PLAIN, PLANE_GROUPS["z2"])
