"""Rotation by any angle: exact at quarter turns, its formula elsewhere, and honest about the border."""

import math

import pytest
import torch

from eqgan.groups import P4, scalar
from eqgan.metrics.rotation import disc, rotate_images, smooth_images
from eqgan.nn import act
from tests.oracles import sinc


@pytest.fixture
def x():
    return torch.rand(2, 3, 9, 9, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("turns", range(-4, 5))
def test_quarter_turns_are_the_action_of_the_group(turns, x):
    turned, mask = rotate_images(x, 90.0 * turns)
    assert torch.equal(turned, act(turns % 4, x, scalar(P4, 3)))
    assert mask.all()


@pytest.mark.parametrize("size", [(9, 9), (8, 8), (7, 10)])
@pytest.mark.parametrize("taps", [1, 2, 3])
@pytest.mark.parametrize("degrees", [10.0, 45.0, -77.7])
def test_against_the_formula(degrees, taps, size):
    image = torch.rand(1, 1, *size, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    turned, mask = rotate_images(image, degrees, taps)
    expected, expected_mask = sinc.rotated(image[0, 0].numpy(), degrees, taps)
    assert torch.allclose(turned[0, 0], torch.from_numpy(expected), atol=1e-12)
    assert torch.equal(mask, torch.from_numpy(expected_mask))


def blobs(side: int, degrees: float) -> torch.Tensor:
    """A smooth picture evaluated at turned coordinates: no interpolation at all."""
    angle = math.radians(degrees)
    y = (side - 1) / 2 - torch.arange(side, dtype=torch.float64)[:, None]
    x = torch.arange(side, dtype=torch.float64)[None] - (side - 1) / 2
    u, v = math.cos(angle) * x + math.sin(angle) * y, -math.sin(angle) * x + math.cos(angle) * y
    parts = [(4.0, 1.0, 3.0), (-5.0, 3.0, 2.5), (1.0, -6.0, 2.0)]
    return sum(torch.exp(-((u - a) ** 2 + (v - b) ** 2) / (2 * s**2)) for a, b, s in parts)[None, None]


@pytest.mark.parametrize("degrees", [15.0, 45.0, 100.0])
def test_against_a_picture_known_everywhere(degrees):
    turned, mask = rotate_images(blobs(33, 0.0), degrees)
    assert ((turned - blobs(33, degrees))[..., mask].abs().max()) < 6e-3
    assert 0.5 < mask.double().mean() < 1


def test_the_other_way_round_is_noticed():
    turned, mask = rotate_images(blobs(33, 0.0), -15.0)
    assert (turned - blobs(33, 15.0))[..., mask].abs().max() > 0.1


def test_what_is_masked_out_is_what_the_outside_would_change():
    """Two pictures that agree inside differ, when turned, in masked pixels only."""
    inner = torch.rand(1, 1, 15, 15, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    wide = torch.nn.functional.pad(inner, (6,) * 4, value=5.0)
    turned, mask = rotate_images(inner, 30.0)
    differs = (rotate_images(wide, 30.0)[0][..., 6:-6, 6:-6] - turned).abs() > 1e-4
    assert differs.any()
    assert not (differs[0, 0] & mask).any()


def test_smooth_images_survive_a_rotation():
    images = smooth_images(4, (1, 28, 28), torch.Generator().manual_seed(0))
    turned, _ = rotate_images(images, 33.0)
    back, _ = rotate_images(turned, -33.0)
    assert images.abs().amax((1, 2, 3)).allclose(torch.ones(4, dtype=torch.float64))
    assert (back - images).square().mean().sqrt() < 5e-3
    assert disc(28, 28)[14, 14] == 1
    assert disc(28, 28)[0, 0] == disc(28, 28)[14, 1] == 0
