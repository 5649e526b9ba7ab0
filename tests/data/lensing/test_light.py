import math

import pytest
import torch
from scipy.special import gammainc
from torch import Tensor

from eqgan.data.lensing import Sersic, blur, observe, sky
from eqgan.data.lensing.light import sersic_b


def _t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _image(galaxy: Sersic, side: int = 600, pixel: float = 0.02) -> Tensor:
    x, y = sky(side, pixel, 1)
    return galaxy.brightness(x, y).view(-1, side, side) * pixel**2


@pytest.mark.parametrize("index", [0.5, 1.0, 2.0])
def test_all_the_light_is_there(index: float) -> None:
    galaxy = Sersic(_t(3.0), _t(0.5), _t(index), _t(0.6), _t(0.4), _t(0.1), _t(-0.1))
    assert _image(galaxy).sum().item() == pytest.approx(3.0, rel=2e-3)


def test_half_of_the_light_is_within_the_effective_radius() -> None:
    """The share inside R_e is the incomplete gamma function P(2n, b_n)."""
    for n in (0.5, 1.0, 2.0, 4.0, 6.0):
        assert gammainc(2 * n, sersic_b(_t(n)).item()) == pytest.approx(0.5, abs=1e-3 if n < 1 else 1e-4)
    x, y = sky(600, 0.02, 1)
    image = _image(Sersic(_t(1.0), _t(0.8), _t(1.0), _t(1.0), _t(0.0), _t(0.0), _t(0.0)))
    inside = image.flatten()[(x**2 + y**2 < 0.8**2)[0]].sum()
    assert inside.item() == pytest.approx(0.5, rel=5e-3)


def test_axes_and_angle() -> None:
    """Equal brightness at R_e / sqrt(q) on the major axis and R_e sqrt(q) on the minor one."""
    q, angle, radius = 0.5, 0.6, 0.7
    galaxy = Sersic(_t(1.0), _t(radius), _t(1.5), _t(q), _t(angle), _t(0.2), _t(0.0))
    major, minor = radius / math.sqrt(q), radius * math.sqrt(q)
    points = [(major, angle), (minor, angle + math.pi / 2), (-major, angle)]
    x = _t(*(0.2 + r * math.cos(phi) for r, phi in points))[None]
    y = _t(*(r * math.sin(phi) for r, phi in points))[None]
    brightness = galaxy.brightness(x, y)[0]
    assert torch.allclose(brightness, brightness[:1], rtol=1e-12)


def test_a_gaussian_is_the_sersic_profile_of_index_one_half() -> None:
    """exp(-r^2 / 2 s^2) has its half-light radius at s sqrt(2 ln 2)."""
    sigma = 0.4
    galaxy = Sersic(
        _t(1.0), _t(sigma * math.sqrt(2 * math.log(2))), _t(0.5), *(_t(v) for v in (1.0, 0, 0, 0))
    )
    x, y = sky(21, 0.1, 1)
    expected = (-(x**2 + y**2) / (2 * sigma**2)).exp() / (2 * math.pi * sigma**2)
    assert torch.allclose(galaxy.brightness(x, y), expected, rtol=2e-2)


def test_blurring_keeps_all_light_also_at_the_border() -> None:
    images = torch.rand(3, 21, 21, dtype=torch.float64)
    blurred = blur(images, _t(0.3, 1.0, 4.0))
    assert torch.allclose(blurred.sum((1, 2)), images.sum((1, 2)), rtol=1e-12)
    assert torch.allclose(blur(images, _t(0.05, 0.05, 0.05)), images, rtol=1e-12)


def test_a_point_becomes_a_gaussian_of_the_stated_width() -> None:
    points = torch.zeros(2, 41, 41, dtype=torch.float64)
    points[:, 20, 20] = 1.0
    blurred = blur(points, _t(1.0, 3.0))
    distance = torch.arange(41, dtype=torch.float64) - 20
    for image, sigma in zip(blurred, (1.0, 3.0)):
        assert (image.sum(0) @ distance**2).item() == pytest.approx(sigma**2, rel=1e-6)
        assert torch.allclose(image, image.T)


def test_noise_has_the_stated_variance() -> None:
    light = torch.full((2, 400, 400), 0.5, dtype=torch.float64)
    noise = torch.randn(2, 400, 400, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    seen = observe(light, noise, _t(0.02, 0.01), _t(1e4, 1e3))
    assert seen.mean().item() == pytest.approx(0.5, abs=1e-3)
    expected = [0.02**2 + 0.5 / 1e4, 0.01**2 + 0.5 / 1e3]
    assert seen.var((1, 2)).tolist() == pytest.approx(expected, rel=0.02)
