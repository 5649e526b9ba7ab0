"""Light of galaxies, and what a telescope makes of it."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from eqgan.data.lensing.mass import into_frame


@dataclass(frozen=True)
class Sersic:
    """Sersic profile: surface brightness falls as the exponential of a power of the elliptical radius.

        I = I_e exp(-b_n ((R / R_e)^(1/n) - 1)),    R^2 = q u^2 + v^2 / q

    in the frame of the axes. R_e encloses half of the light; I_e follows from the total flux,
    2 pi n R_e^2 I_e exp(b_n) b_n^(-2n) Gamma(2n).

    Args:
        flux: total, in any unit.
        radius: R_e, in arcseconds.
        index: n, from about 0.5: 1 is a disc, 4 an elliptical galaxy.
        ratio: q, minor over major axis.
        angle: of the major axis.
        x, y: of the centre.

    References:
        Ciotti and Bertin, arXiv:astro-ph/9911078, equation 18 (b_n); Graham and Driver,
        arXiv:astro-ph/0503176, equation 4 (total flux).
    """

    flux: Tensor
    radius: Tensor
    index: Tensor
    ratio: Tensor
    angle: Tensor
    x: Tensor
    y: Tensor

    def brightness(self, x: Tensor, y: Tensor) -> Tensor:
        """Return flux per square arcsecond at (x, y), (batch, rays)."""
        u, v = into_frame(x, y, self.x, self.y, self.angle)
        q, n = self.ratio[:, None], self.index[:, None]
        squared = (q * u**2 + v**2 / q) / self.radius[:, None] ** 2
        b = sersic_b(n)
        total = (
            math.pi * 2 * n * self.radius[:, None] ** 2 * (torch.lgamma(2 * n) + b - 2 * n * b.log()).exp()
        )
        return self.flux[:, None] / total * (b * (1 - squared ** (0.5 / n))).exp()


def sersic_b(n: Tensor) -> Tensor:
    """Return b_n, which makes R_e enclose half of the light, to 1e-3 for n from 0.5."""
    return 2 * n - 1 / 3 + 4 / (405 * n) + 46 / (25515 * n**2) + 131 / (1148175 * n**3)


def blur(
    images: Float[Tensor, "batch side side"], sigma: Float[Tensor, " batch"]
) -> Float[Tensor, "batch side side"]:
    """Spread light as a Gaussian point spread function does, one width per image; no light is lost.

    What would fall outside the image is kept in it.

    Args:
        images: light per pixel.
        sigma: standard deviation in pixels, above 0.
    """
    position = torch.arange(images.shape[-1], dtype=images.dtype, device=images.device)
    distance = (position[:, None] - position) / sigma[:, None, None]
    kernel = (-(distance**2) / 2).exp()
    kernel = kernel / kernel.sum(1, keepdim=True)  # column j: where the light of pixel j goes
    return kernel @ images @ kernel.mT


def observe(
    images: Float[Tensor, "batch side side"],
    noise: Float[Tensor, "batch side side"],
    background: Float[Tensor, " batch"],
    gain: Float[Tensor, " batch"],
) -> Float[Tensor, "batch side side"]:
    """Add the noise of the sky and of the photons, the latter in its Gaussian limit.

    Args:
        images: light per pixel.
        noise: standard normal numbers.
        background: standard deviation of the sky and the detector, in the unit of the images.
        gain: photons per unit of light.
    """
    variance = background[:, None, None] ** 2 + images / gain[:, None, None]
    return images + variance.sqrt() * noise
