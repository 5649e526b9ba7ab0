"""Deflection and convergence of thin lenses, for a batch of lenses and of rays at once.

Angles on the sky are in arcseconds, x to the right and y up; position angles are in radians,
counter-clockwise from x. The convergence is the surface mass density in units of the critical one, the
deflection is the gradient of a potential, and its divergence is twice the convergence. Masses are in units of
pi times the critical density times a square arcsecond: a point of mass m has the Einstein radius sqrt(m).

Parameters are tensors (batch,), rays (batch, rays) or what broadcasts to that.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

_TINY = 1e-30


class Mass(ABC):
    """A thin lens."""

    @abstractmethod
    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return by how much rays at (x, y) are deflected: they come from (x, y) minus this."""

    @abstractmethod
    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        """Return the surface mass density at (x, y) in units of the critical one."""


@dataclass(frozen=True)
class SIE(Mass):
    """Singular isothermal ellipsoid: what galaxies look like to a lens.

    In the frame of its axes, with b the Einstein radius, q the axis ratio, f = sqrt(1 - q^2) and
    r = sqrt(q^2 x^2 + y^2):

        kappa = b sqrt(q) / (2 r)
        alpha = b sqrt(q) / f (arctan(f x / r), artanh(f y / r))

    The ellipse on which kappa is 1/2 has the area pi b^2 for every q; q = 1 is the isothermal sphere.

    Args:
        radius: Einstein radius b.
        ratio: q, minor over major axis, above 0 and up to 1.
        angle: of the major axis.
        x, y: of the centre.

    References:
        Kormann, Schneider and Bartelmann, A&A 284, 285, 1994, equations 21 and 27.
    """

    radius: Tensor
    ratio: Tensor
    angle: Tensor
    x: Tensor
    y: Tensor

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        u, v = into_frame(x, y, self.x, self.y, self.angle)
        q = self.ratio[:, None]
        r = (q**2 * u**2 + v**2).sqrt().clamp_min(_TINY)
        f = (1 - q**2).clamp_min(0).sqrt()
        scale = self.radius[:, None] * q.sqrt()
        return out_of_frame(scale * _over(f, u / r, -1), scale * _over(f, v / r, +1), self.angle)

    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        u, v = into_frame(x, y, self.x, self.y, self.angle)
        q = self.ratio[:, None]
        return self.radius[:, None] * q.sqrt() / (2 * (q**2 * u**2 + v**2).sqrt().clamp_min(_TINY))


@dataclass(frozen=True)
class Shear(Mass):
    """External shear: the tide of masses outside the image, about its centre.

        alpha = gamma ((cos 2 phi, sin 2 phi), (sin 2 phi, -cos 2 phi)) (x, y)

    Args:
        strength: gamma.
        angle: phi, the direction in which images are stretched.
    """

    strength: Tensor
    angle: Tensor

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        first = (self.strength * (2 * self.angle).cos())[:, None]
        second = (self.strength * (2 * self.angle).sin())[:, None]
        return first * x + second * y, second * x - first * y

    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.zeros_like(self.strength[:, None] * (x + y))


@dataclass(frozen=True)
class TruncatedSphere(Mass):
    """Truncated isothermal sphere (pseudo-Jaffe profile): a subhalo that the tide has cut off.

    At the distance r, with b the Einstein radius it would have without the truncation radius a:

        kappa = b / 2 (1 / r - 1 / sqrt(r^2 + a^2))
        alpha = b (r + a - sqrt(r^2 + a^2)) / r, outwards

    Its mass is a b.

    Args:
        radius: b; 0 means no mass at all.
        truncation: a, above 0.
        x, y: of the centre.

    References:
        Dalal and Kochanek, arXiv:astro-ph/0111456, section 2.
    """

    radius: Tensor
    truncation: Tensor
    x: Tensor
    y: Tensor

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        u, v = x - self.x[:, None], y - self.y[:, None]
        a = self.truncation[:, None]
        r = (u**2 + v**2).sqrt()
        # (r + a - sqrt(r^2 + a^2)) / r^2 without the difference of nearly equal numbers
        slope = self.radius[:, None] * 2 * a / (r * (r + a + (r**2 + a**2).sqrt())).clamp_min(_TINY)
        return slope * u, slope * v

    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        r = ((x - self.x[:, None]) ** 2 + (y - self.y[:, None]) ** 2).sqrt()
        whole = (r**2 + self.truncation[:, None] ** 2).sqrt()
        return self.radius[:, None] / 2 * (1 / r.clamp_min(_TINY) - 1 / whole)


@dataclass(frozen=True)
class Filament(Mass):
    """A straight line of mass, as a vortex of superfluid dark matter may look: Plummer spheres on a segment.

    A Plummer sphere of mass m and core s deflects by m d / (|d|^2 + s^2) at the distance vector d. The mean
    over a segment of length l on the x axis, with w = sqrt(y^2 + s^2) and t from x - l/2 to x + l/2, is

        alpha_x = m / (2 l) [ln(t^2 + w^2)],    alpha_y = m y / (l w) [arctan(t / w)]
        kappa = m s^2 / l [t / (2 w^2 (t^2 + w^2)) + arctan(t / w) / (2 w^3)]

    where the brackets are the difference between the ends.

    Args:
        mass: m.
        length: l, above 0.
        core: s, above 0.
        angle: of the line.
        x, y: of its middle.

    References:
        Alexander et al., arXiv:1909.07346, for vortices as lines of uniform density.
    """

    mass: Tensor
    length: Tensor
    core: Tensor
    angle: Tensor
    x: Tensor
    y: Tensor

    def deflection(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        u, v = into_frame(x, y, self.x, self.y, self.angle)
        near, far, w = self._ends(u, v)
        density = (self.mass / self.length)[:, None]
        along = density / 2 * ((far**2 + w**2) / (near**2 + w**2)).log()
        across = density * v / w * ((far / w).atan() - (near / w).atan())
        return out_of_frame(along, across, self.angle)

    def convergence(self, x: Tensor, y: Tensor) -> Tensor:
        u, v = into_frame(x, y, self.x, self.y, self.angle)
        near, far, w = self._ends(u, v)
        values = [t / (2 * w**2 * (t**2 + w**2)) + (t / w).atan() / (2 * w**3) for t in (far, near)]
        return (self.mass / self.length * self.core**2)[:, None] * (values[0] - values[1])

    def _ends(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        half = self.length[:, None] / 2
        return u - half, u + half, (v**2 + self.core[:, None] ** 2).sqrt()


def into_frame(x: Tensor, y: Tensor, x0: Tensor, y0: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Return coordinates relative to a centre, along axes turned by an angle."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    u, v = x - x0[:, None], y - y0[:, None]
    return cos * u + sin * v, cos * v - sin * u


def out_of_frame(u: Tensor, v: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    """Turn vectors back from axes turned by an angle."""
    cos, sin = angle.cos()[:, None], angle.sin()[:, None]
    return cos * u - sin * v, sin * u + cos * v


def _over(f: Tensor, t: Tensor, sign: int) -> Tensor:
    """Return arctan(f t) / f (sign -1) or artanh(f t) / f (sign +1), which is t where f is 0."""
    small = f < 1e-3
    safe = torch.where(small, torch.ones_like(f), f)
    exact = ((safe * t).atan() if sign < 0 else (safe * t).atanh()) / safe
    return torch.where(small, t * (1 + sign * (f * t) ** 2 / 3), exact)
