"""What lenses are drawn: the distributions of every parameter, from NumPy's frozen legacy stream."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from eqgan.data.lensing.light import Sersic
from eqgan.data.lensing.mass import SIE, Filament, Mass, Shear, TruncatedSphere

SUBHALOES = 5
"""The largest number of subhaloes in a lens."""


@dataclass(frozen=True)
class Scene:
    """A batch of lenses before anyone looks at them.

    Attributes:
        labels: class of each, int64 (batch,).
        masses: what deflects.
        lens: light of the lensing galaxy, in front of the masses.
        source: light behind them.
        psf: standard deviation of the point spread function, in arcseconds.
        background, gain: see `eqgan.data.lensing.light.observe`.
    """

    labels: Tensor
    masses: tuple[Mass, ...]
    lens: Sersic
    source: Sersic
    psf: Tensor
    background: Tensor
    gain: Tensor


@dataclass(frozen=True)
class Task:
    """Classes to tell apart.

    Attributes:
        name: of the source of images.
        classes: their names, in the order of the labels.
        lensed: number to whether that class is lensed at all.
        substructure: number to "", "subhaloes" or "vortex".
        background: least and largest noise of the sky, per pixel; a source has a flux of about 1.
    """

    name: str
    classes: tuple[str, ...]
    lensed: tuple[bool, ...]
    substructure: tuple[str, ...]
    background: tuple[float, float]


TASKS = {
    "lens": Task("lens", ("no-lens", "lens"), (False, True), ("", ""), (0.003, 0.03)),
    "lens3": Task(
        "lens3",
        ("no", "sphere", "vortex"),
        (True, True, True),
        ("", "subhaloes", "vortex"),
        (0.0005, 0.002),
    ),
}
"""The binary task, and the three classes of substructure in lenses."""


class Draws:
    """Random numbers for a batch of lenses, (batch,) at a time."""

    def __init__(self, stream: np.random.RandomState, count: int) -> None:
        self.stream, self.count = stream, count

    def uniform(self, low: float, high: float) -> Tensor:
        return torch.from_numpy(self.stream.uniform(low, high, self.count))

    def log_uniform(self, low: float, high: float) -> Tensor:
        return self.uniform(math.log(low), math.log(high)).exp()

    def direction(self) -> Tensor:
        """Return orientations of things without a front and a back."""
        return self.uniform(0.0, math.pi)

    def near_ring(self, radius: Tensor) -> tuple[Tensor, Tensor]:
        """Return positions at 0.6 to 1.3 times these radii, where arcs can show what is there."""
        distance, angle = self.uniform(0.6, 1.3) * radius, self.uniform(0.0, 2 * math.pi)
        return distance * angle.cos(), distance * angle.sin()


def draw(task: Task, labels: np.ndarray, stream: np.random.RandomState) -> Scene:
    """Draw a batch of lenses of given classes.

    As many numbers are drawn for every class, so that a lens does not depend on the labels of its neighbours.

    Args:
        task: what the labels mean.
        labels: integers (batch,).
        stream: of random numbers; the values of the parameters are a function of its state alone.
    """
    draws = Draws(stream, len(labels))
    lensed = torch.tensor(task.lensed, dtype=torch.float64)[labels]
    radius, angle = draws.uniform(0.9, 1.5), draws.direction()
    x, y = draws.uniform(-0.05, 0.05), draws.uniform(-0.05, 0.05)
    galaxy = SIE(radius * lensed, draws.uniform(0.6, 0.95), angle, x, y)
    shear = Shear(draws.uniform(0.0, 0.08) * lensed, draws.direction())
    light = Sersic(
        draws.log_uniform(2.0, 8.0),
        draws.uniform(0.4, 0.8),
        draws.uniform(2.0, 4.0),
        draws.uniform(0.6, 0.95),
        angle + draws.uniform(-0.2, 0.2),  # mass roughly follows light
        x,
        y,
    )
    source = _source(radius, lensed > 0, draws)
    psf, background = draws.uniform(0.04, 0.08), draws.log_uniform(*task.background)
    gain = draws.log_uniform(1e4, 1e5)
    masses = (galaxy, shear, *_substructure(task, labels, radius, draws))
    return Scene(torch.from_numpy(labels.astype(np.int64)), masses, light, source, psf, background, gain)


def _source(radius: Tensor, lensed: Tensor, draws: Draws) -> Sersic:
    """Return the galaxy behind; where nothing is lensed, a neighbour as bright and as far out as arcs are."""
    angle, within = draws.uniform(0.0, 2 * math.pi), draws.uniform(0.0, 1.0).sqrt()
    offset = radius * torch.where(lensed, 0.35 * within, 0.5 + within)
    brighter, larger = draws.log_uniform(1.5, 12.0), draws.uniform(1.0, 2.5)
    return Sersic(
        draws.log_uniform(0.5, 2.0) * torch.where(lensed, 1.0, brighter),
        draws.uniform(0.1, 0.25) * torch.where(lensed, 1.0, larger),
        draws.uniform(0.8, 2.0),
        draws.uniform(0.4, 1.0),
        draws.direction(),
        offset * angle.cos(),
        offset * angle.sin(),
    )


def _substructure(task: Task, labels: np.ndarray, radius: Tensor, draws: Draws) -> tuple[Mass, ...]:
    """Return subhaloes and a vortex of the same total mass; without mass where the class has none."""
    if not any(task.substructure):
        return ()
    kinds = np.array(task.substructure)[labels]
    spheres, vortex = (torch.from_numpy(1.0 * (kinds == kind)) for kind in ("subhaloes", "vortex"))
    total = draws.uniform(0.06, 0.16) * radius**2
    haloes = [_subhalo(share * spheres * total, radius, draws) for share in _shares(draws)]
    position = draws.near_ring(radius)
    length, core = draws.uniform(0.8, 1.6) * radius, torch.full_like(radius, 0.05)
    return (*haloes, Filament(total * vortex, length, core, draws.direction(), *position))


def _shares(draws: Draws) -> Tensor:
    """Return (SUBHALOES, batch) shares of the total mass: 1 to SUBHALOES numbers from m^-1.9, 1 to 30."""
    number = torch.from_numpy(draws.stream.randint(1, SUBHALOES + 1, draws.count))
    quantile = torch.stack([draws.uniform(0.0, 1.0) for _ in range(SUBHALOES)])
    masses = (1 - quantile * (1 - 30**-0.9)) ** (-1 / 0.9)
    masses = masses * (torch.arange(SUBHALOES)[:, None] < number)
    return masses / masses.sum(0)


def _subhalo(mass: Tensor, radius: Tensor, draws: Draws) -> TruncatedSphere:
    """Return a sphere of some mass, truncated where the tide of the lens cuts it off: a = sqrt(b radius)."""
    b = mass ** (2 / 3) / radius ** (1 / 3)  # mass = a b
    return TruncatedSphere(b, (b * radius).sqrt().clamp_min(1e-6), *draws.near_ring(radius))
