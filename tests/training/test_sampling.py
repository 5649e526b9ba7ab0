"""Samples: the same for a seed however many there are, truncated as told, in exact orbits."""

import math

import pytest
import torch
from scipy import stats

from eqgan.data.loader import to_unit
from eqgan.groups import P2MM, P4, P4M, Z2
from eqgan.networks import OrbitGenerator
from eqgan.training.sampling import draw_samples, orbits, require_class, to_bytes, truncated
from tests.cli.made import tiny_gan


@pytest.fixture(scope="module")
def gan():
    return tiny_gan(P4).eval()


def images_of(gan, count, **options):
    return torch.cat([part.images for part in draw_samples(gan, count, **options)])


def test_they_are_those_of_the_averaged_generator(gan):
    (part,) = draw_samples(gan, 20, seed=4)
    expected = gan.ema.module(part.latents)
    assert torch.allclose(part.images, expected, atol=1e-6)
    assert not torch.allclose(part.images, gan.generator.eval()(part.latents), atol=1e-3)


def test_a_seed_means_the_same_samples_however_many(gan):
    many = images_of(gan, 1003, seed=1)
    assert len(many) == 1003
    for count in (7, 1000):  # to rounding: a convolution may add in another order for another batch size
        torch.testing.assert_close(images_of(gan, count, seed=1), many[:count], rtol=0, atol=1e-5)
    assert not torch.allclose(images_of(gan, 7, seed=2), many[:7], atol=1e-2)


def test_drawing_leaves_the_random_numbers_of_training_alone(gan):
    before = torch.get_rng_state()
    images_of(gan, 3)
    assert torch.equal(torch.get_rng_state(), before)


def test_truncated_latents_follow_the_truncated_normal(gan):
    latents = torch.randn(2000, 9, generator=torch.Generator().manual_seed(0))
    for limit in (0.3, 1.0, 2.5):
        moved = truncated(latents, limit, gan)[:, :-1].flatten().numpy()
        assert abs(moved).max() <= limit
        assert stats.kstest(moved, stats.truncnorm(-limit, limit).cdf).pvalue > 1e-3


def test_the_group_element_is_not_truncated(gan):
    latents = torch.randn(500, 9, generator=torch.Generator().manual_seed(0))
    assert isinstance(gan.generator, OrbitGenerator)
    assert torch.equal(truncated(latents, 0.1, gan)[:, -1], latents[:, -1])
    plain = tiny_gan(Z2)
    assert truncated(latents, 0.1, plain)[:, -1].abs().max() <= 0.1


def test_no_cut_is_the_limit_of_wide_cuts(gan):
    latents = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(truncated(latents, 30.0, gan), latents, atol=1e-5)
    assert torch.equal(images_of(gan, 5, truncation=None), images_of(gan, 5))
    assert not torch.equal(images_of(gan, 5, truncation=0.5), images_of(gan, 5))
    for bad in (0.0, -1.0, math.nan):
        with pytest.raises(ValueError, match="expected a number above 0"):
            truncated(latents, bad, gan)


@pytest.mark.parametrize("group", [P2MM, P4, P4M], ids=str)
def test_orbits_are_closed_and_exact(group):
    images = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(0))
    found = orbits(images, group)
    assert found.shape == (3, group.order, 2, 5, 5)
    assert torch.equal(found[:, 0], images)
    if group == P4:
        assert torch.equal(found[:, 1], torch.rot90(images, 1, (2, 3)))
    for g in range(group.order):  # the orbit of a member is the same orbit
        again = orbits(found[:, g], group)
        for i in range(3):
            assert {x.numpy().tobytes() for x in again[i]} == {x.numpy().tobytes() for x in found[i]}
    with pytest.raises(ValueError, match="quarter turns"):
        orbits(images[..., :4], P4)


def test_bytes_and_back():
    every = torch.arange(256, dtype=torch.uint8).view(1, 16, 16)
    assert torch.equal(to_bytes(to_unit(every)), every)


def test_classes_of_an_unconditional_gan(gan):
    require_class(gan, None)
    with pytest.raises(ValueError, match="this GAN is unconditional"):
        require_class(gan, 3)
    with pytest.raises(ValueError, match="at least 1 sample"):
        list(draw_samples(gan, 0))
