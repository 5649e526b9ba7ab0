"""The random group element in the latent: exactly invariant samples, which an invariant score cannot see."""

import math

import pytest
import torch

from eqgan.groups import P4, P4M, P6, SQUARE_PLANE_GROUPS, scalar
from eqgan.networks import ConvGenerator, OrbitGenerator, StridedDiscriminator
from eqgan.nn import act
from tests.waiting import NoWaiting


def latents_for(base_latents, element, order):
    """Latents whose last entry picks this element: the middle of its share of the standard normal."""
    u = torch.full((len(base_latents), 1), (element + 0.5) / order, dtype=base_latents.dtype)
    return torch.cat([base_latents, torch.special.ndtri(u)], 1)


@pytest.mark.parametrize("name", SQUARE_PLANE_GROUPS)
def test_each_element_moves_the_base_image(name):
    group = SQUARE_PLANE_GROUPS[name]
    base = ConvGenerator((1, 16, 16), latent_dim=5, width=2).double().eval()
    orbit = OrbitGenerator(base, group).eval()
    z = torch.randn(3, 5, dtype=torch.float64)
    for g in range(group.order):
        moved = act(g, base(z), scalar(group, 1))
        assert torch.allclose(orbit(latents_for(z, g, group.order)), moved, rtol=0, atol=1e-12)


def test_the_set_of_samples_over_all_elements_is_closed_under_the_group():
    base = ConvGenerator((1, 16, 16), latent_dim=5, width=2).double().eval()
    orbit = OrbitGenerator(base, P4M).eval()
    z = torch.randn(1, 5, dtype=torch.float64)
    samples = [orbit(latents_for(z, g, 8)) for g in range(8)]
    for h in range(8):
        moved = [act(h, s, scalar(P4M, 1)) for s in samples]
        assert all(any(torch.equal(m, s) for s in samples) for m in moved)


def test_elements_are_drawn_uniformly_and_extremes_stay_in_range():
    base = ConvGenerator((1, 16, 16), latent_dim=1, width=1).eval()
    orbit = OrbitGenerator(base, P4).eval()
    z = orbit.draw_latents(4000, torch.Generator().manual_seed(0))
    assert (orbit.elements(z).bincount(minlength=4) / 4000 - 0.25).abs().max() < 0.03
    edge = torch.tensor([[0.0, -math.inf], [0.0, math.inf]])
    assert torch.equal(orbit(edge)[:1], base(edge[:1, :1]))  # -inf picks the identity
    assert torch.isfinite(orbit(edge)).all()


def test_an_invariant_score_cannot_see_the_element_but_a_plain_one_can():
    base = ConvGenerator((1, 16, 16), latent_dim=5, width=2).double()
    orbit = OrbitGenerator(base, P4).eval()
    z = torch.randn(4, 5, dtype=torch.float64)
    there, turned = orbit(latents_for(z, 0, 4)), orbit(latents_for(z, 1, 4))
    invariant = StridedDiscriminator((1, 16, 16), P4, width=4).double()
    plain = StridedDiscriminator((1, 16, 16), SQUARE_PLANE_GROUPS["z2"], width=4).double()
    assert torch.allclose(invariant(there), invariant(turned), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(plain(there), plain(turned), rtol=1e-3)


def test_the_gradient_of_the_base_does_not_depend_on_the_element():
    base = ConvGenerator((1, 16, 16), latent_dim=5, width=2).double().eval()
    orbit = OrbitGenerator(base, P4).eval()
    score = StridedDiscriminator((1, 16, 16), P4, width=4).double()
    z = torch.randn(4, 5, dtype=torch.float64)

    def gradients(element):
        base.zero_grad()
        score(orbit(latents_for(z, element, 4))).sum().backward()
        return [p.grad.clone() for p in base.parameters()]

    for a, b in zip(gradients(0), gradients(3)):
        assert torch.allclose(a, b, rtol=1e-8, atol=1e-12)


def test_nothing_waits_for_the_device():
    orbit = OrbitGenerator(ConvGenerator((1, 16, 16), latent_dim=5, width=2), P4)
    z = orbit.draw_latents(4)
    with NoWaiting():
        orbit(z).sum().backward()
        with pytest.raises(AssertionError, match="waits for the device"):
            (z > 0).nonzero()


def test_non_square_images_and_hexagonal_groups_are_refused():
    from eqgan.networks import VanillaGenerator

    with pytest.raises(ValueError, match="square images"):
        OrbitGenerator(VanillaGenerator((1, 8, 10), latent_dim=3, hidden=(4,)), P4)
    with pytest.raises(ValueError, match="symmetrise false"):
        OrbitGenerator(ConvGenerator((1, 16, 16), latent_dim=3, width=1), P6)
