"""Deflections against closed forms, finite differences, and numerical integrals of the convergence."""

import math

import numpy as np
import pytest
import torch
from scipy.integrate import dblquad
from torch import Tensor

from eqgan.data.lensing import SIE, Filament, Mass, Shear, TruncatedSphere


def _t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


MASSES = {
    "sis": SIE(_t(1.2), _t(1.0), _t(0.3), _t(0.1), _t(-0.2)),
    "nearly-sis": SIE(_t(1.2), _t(1 - 1e-7), _t(0.3), _t(0.1), _t(-0.2)),
    "sie": SIE(_t(1.2), _t(0.6), _t(0.7), _t(0.1), _t(-0.2)),
    "shear": Shear(_t(0.08), _t(1.1)),
    "sphere": TruncatedSphere(_t(0.3), _t(0.5), _t(-0.1), _t(0.3)),
    "filament": Filament(_t(0.2), _t(1.1), _t(0.15), _t(0.9), _t(0.2), _t(0.1)),
}


def _rays(count: int = 400) -> tuple[Tensor, Tensor]:
    """Rays away from the singular centres and the finite differences around them."""
    x, y = torch.from_numpy(np.random.RandomState(0).uniform(-2, 2, (2, 1, count)))
    away = ((x - 0.1) ** 2 + (y + 0.2) ** 2 > 0.04) & ((x + 0.1) ** 2 + (y - 0.3) ** 2 > 0.04)
    return x[away][None], y[away][None]


def _gradients(mass: Mass, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
    """Return d alpha_x / dx, d alpha_x / dy, d alpha_y / dx, d alpha_y / dy by central differences."""
    h = 1e-5
    right, left = mass.deflection(x + h, y), mass.deflection(x - h, y)
    up, down = mass.deflection(x, y + h), mass.deflection(x, y - h)
    across = [(after - before) / (2 * h) for after, before in zip(right, left)]
    along = [(after - before) / (2 * h) for after, before in zip(up, down)]
    return across[0], along[0], across[1], along[1]


@pytest.mark.parametrize("mass", MASSES.values(), ids=MASSES)
def test_deflection_is_a_gradient_and_its_divergence_is_twice_the_convergence(mass: Mass) -> None:
    x, y = _rays()
    xx, xy, yx, yy = _gradients(mass, x, y)
    assert (xy - yx).abs().max() < 1e-8
    assert (xx + yy - 2 * mass.convergence(x, y)).abs().max() < 1e-8


def test_the_law_notices_a_wrong_deflection() -> None:
    class Wrong(SIE):
        def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            ax, ay = super().deflection(x, y)
            return ax, 1.01 * ay

    wrong = Wrong(**vars(MASSES["sie"]))
    with pytest.raises(AssertionError):
        test_deflection_is_a_gradient_and_its_divergence_is_twice_the_convergence(wrong)


@pytest.mark.parametrize("name", ["sis", "nearly-sis"])
def test_the_isothermal_sphere_deflects_by_its_einstein_radius_everywhere(name: str) -> None:
    x, y = _rays()
    ax, ay = MASSES[name].deflection(x, y)
    u, v = x - 0.1, y + 0.2
    r = (u**2 + v**2).sqrt()
    tolerance = 1e-12 if name == "sis" else 1e-6
    assert (ax - 1.2 * u / r).abs().max() < tolerance
    assert (ay - 1.2 * v / r).abs().max() < tolerance


def test_a_source_behind_the_centre_of_a_sphere_is_a_ring_of_its_radius() -> None:
    phi = torch.linspace(0, 2 * math.pi, 50, dtype=torch.float64)[None]
    x, y = 0.1 + 1.2 * phi.cos(), -0.2 + 1.2 * phi.sin()
    ax, ay = MASSES["sis"].deflection(x, y)
    assert torch.allclose(x - ax, torch.full_like(x, 0.1), atol=1e-12)
    assert torch.allclose(y - ay, torch.full_like(y, -0.2), atol=1e-12)


def test_magnification_of_a_sphere_at_a_known_point() -> None:
    """1 / (1 - b / theta): 4 at theta = 1.6 for b = 1.2, of an image outside the ring."""
    x, y = _t(0.1 + 1.6)[None], _t(-0.2)[None]
    xx, xy, yx, yy = _gradients(MASSES["sis"], x, y)
    jacobian = (1 - xx) * (1 - yy) - xy * yx
    assert (1 / jacobian).item() == pytest.approx(4.0, rel=1e-6)


def test_shear_stretches_along_its_angle() -> None:
    """At angle 0 the source is (1 - gamma) x, (1 + gamma) y: images are larger along x."""
    shear = Shear(_t(0.1), _t(0.0))
    ax, ay = shear.deflection(_t(2.0)[None], _t(3.0)[None])
    assert (ax.item(), ay.item()) == pytest.approx((0.2, -0.3))
    turned = Shear(_t(0.1), _t(math.pi / 2)).deflection(_t(2.0)[None], _t(3.0)[None])
    assert (turned[0].item(), turned[1].item()) == pytest.approx((-0.2, 0.3))


def test_the_ellipse_where_the_convergence_is_one_half_has_the_area_of_the_ring() -> None:
    """On the minor axis kappa is 1/2 at sqrt(q) b, on the major one at b / sqrt(q)."""
    b, q, phi = 1.2, 0.6, 0.7
    for distance, direction in ((b / math.sqrt(q), phi), (b * math.sqrt(q), phi + math.pi / 2)):
        x, y = 0.1 + distance * math.cos(direction), -0.2 + distance * math.sin(direction)
        assert MASSES["sie"].convergence(_t(x)[None], _t(y)[None]).item() == pytest.approx(0.5, rel=1e-12)


@pytest.mark.parametrize(("name", "mass"), [("sphere", 0.3 * 0.5), ("filament", 0.2)])
def test_the_mass_is_as_stated(name: str, mass: float) -> None:
    """Far away the deflection is that of a point, and the flux through a large ring is the mass inside."""
    phi = torch.linspace(0, 2 * math.pi, 361, dtype=torch.float64)[None, :-1]
    far = 2000.0
    ax, ay = MASSES[name].deflection(far * phi.cos(), far * phi.sin())
    assert ((ax * phi.cos() + ay * phi.sin()).mean() * far).item() == pytest.approx(mass, rel=1e-3)


def test_a_filament_is_the_sum_of_its_plummer_spheres() -> None:
    m, length, core, angle, x0, y0 = 0.2, 1.1, 0.15, 0.9, 0.2, 0.1
    x, y = _rays(20)
    steps = (np.arange(20_000) + 0.5) / 20_000 * length - length / 2
    for ray, (px, py) in enumerate(zip(x[0].tolist(), y[0].tolist())):
        dx, dy = px - x0 - steps * math.cos(angle), py - y0 - steps * math.sin(angle)
        weight = m / (dx**2 + dy**2 + core**2)
        expected = (dx * weight).mean(), (dy * weight).mean()
        ax, ay = MASSES["filament"].deflection(x, y)
        assert (ax[0, ray].item(), ay[0, ray].item()) == pytest.approx(expected, rel=1e-6)


def test_deflection_is_the_integral_of_the_convergence() -> None:
    """alpha(theta) = 1/pi integral kappa(t) (theta - t) / |theta - t|^2, for the sphere, on one ray."""
    b, a = 0.3, 0.5
    sphere = TruncatedSphere(_t(b), _t(a), _t(0.0), _t(0.0))

    def kappa_r(r: float) -> float:
        return b / 2 * (1 - r / math.hypot(r, a))  # times r: no singularity in polar coordinates

    inside, _ = dblquad(lambda phi, r: kappa_r(r), 0, 0.8, 0, 2 * math.pi)
    ax, ay = sphere.deflection(_t(0.8)[None], _t(0.0)[None])
    assert ax.item() == pytest.approx(inside / math.pi / 0.8, rel=1e-9)  # Gauss: only the mass inside counts
    assert ay.item() == 0


@pytest.mark.parametrize("name", ["sis", "sie", "sphere", "filament"])
def test_centres_are_finite(name: str) -> None:
    mass = MASSES[name]
    ax, ay = mass.deflection(mass.x[:, None], mass.y[:, None])
    assert (ax.item(), ay.item()) == pytest.approx((0, 0), abs=1e-12)
    assert torch.isfinite(mass.convergence(mass.x[:, None], mass.y[:, None])).all()


def test_no_mass_deflects_nothing() -> None:
    x, y = _rays()
    for mass in (
        SIE(_t(0.0), _t(0.6), _t(0.7), _t(0.1), _t(-0.2)),
        TruncatedSphere(_t(0.0), _t(1e-6), _t(0.0), _t(0.0)),
        Filament(_t(0.0), _t(1.0), _t(0.1), _t(0.0), _t(0.0), _t(0.0)),
    ):
        assert all(not component.any() for component in mass.deflection(x, y))
        assert not mass.convergence(x, y).any()


def test_masses_of_a_batch_are_independent() -> None:
    x, y = _rays(50)
    pair = SIE(
        *(torch.cat([a, b]) for a, b in zip(vars(MASSES["sis"]).values(), vars(MASSES["sie"]).values()))
    )
    ax, _ = pair.deflection(x, y)
    assert torch.equal(ax[1:], MASSES["sie"].deflection(x, y)[0])
    assert torch.equal(ax[:1], MASSES["sis"].deflection(x, y)[0])
