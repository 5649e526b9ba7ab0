"""Adversarial losses as small objects: each turns scores into one number to minimise."""

from abc import ABC, abstractmethod

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

Scores = Float[Tensor, "batch"]
Scalar = Float[Tensor, ""]


class GANLoss(ABC):
    """What the discriminator and the generator minimise.

    Attributes:
        generator_sees_reals: whether the generator's loss needs the scores of real images as well.
        couples_scores: whether it is more than a mean over images, or pairs of a real and a generated one.
    """

    generator_sees_reals = False
    couples_scores = True

    @abstractmethod
    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        """Loss of the discriminator, from its scores of real and generated images."""

    @abstractmethod
    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        """Loss of the generator."""


class NonSaturatingLoss(GANLoss):
    """D: -log sigmoid(real) - log(1 - sigmoid(fake)); G: -log sigmoid(fake).

    References:
        Goodfellow et al., arXiv:1406.2661, section 3.

    Example:
        >>> import torch
        >>> zero = torch.zeros(4)
        >>> round(NonSaturatingLoss().discriminator(zero, zero).item(), 4)  # 2 log 2
        1.3863
    """

    couples_scores = False

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return F.softplus(-fake).mean()


class HingeLoss(GANLoss):
    """D: max(0, 1 - real) + max(0, 1 + fake); G: -fake.

    References:
        Lim & Ye, arXiv:1705.02894; Miyato et al., arXiv:1802.05957, equations 16 and 17.
    """

    couples_scores = False

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return -fake.mean()


class RelativisticAverageLoss(GANLoss):
    """Each side should score above the other's average, by log-sigmoid; the generator's loss mirrors D's.

    References:
        Jolicoeur-Martineau, arXiv:1807.00734, equations 14 and 15; used by Dey et al., arXiv:2005.01683.
    """

    generator_sees_reals = True

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return F.softplus(fake.mean() - real).mean() + F.softplus(fake - real.mean()).mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        if real is None:
            raise ValueError("the relativistic average loss of the generator needs the scores of real images")
        return self.discriminator(fake, real)


class RelativisticPairingLoss(GANLoss):
    """Each real image should score above the generated one of its pair, by log-sigmoid; G's loss mirrors D's.

    D: -log sigmoid(real_i - fake_i); G: -log sigmoid(fake_i - real_i).

    References:
        Jolicoeur-Martineau, arXiv:1807.00734, equations 11 and 12; with R1 and R2 it is the loss of R3GAN,
        Huang et al., arXiv:2501.05441, equation 2.
    """

    couples_scores = False

    generator_sees_reals = True

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return F.softplus(fake - real).mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        if real is None:
            raise ValueError("the relativistic pairing loss of the generator needs the scores of real images")
        return self.discriminator(fake, real)


class MinimaxLoss(NonSaturatingLoss):
    """D as in the non-saturating loss; G minimises what D maximises, log(1 - sigmoid(fake)).

    The generator's gradient vanishes where the discriminator is sure, which the non-saturating form mends.

    References:
        Goodfellow et al., arXiv:1406.2661, equation 1.
    """

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return -F.softplus(fake).mean()


class LeastSquaresLoss(GANLoss):
    """D: (real - 1)^2 / 2 + fake^2 / 2; G: (fake - 1)^2 / 2.

    References:
        Mao et al., arXiv:1611.04076, equation 9 (a = 0, b = c = 1).
    """

    couples_scores = False

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return 0.5 * ((real - 1).square().mean() + fake.square().mean())

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return 0.5 * (fake - 1).square().mean()


class WassersteinLoss(GANLoss):
    """D: fake - real; G: -fake. Bounded only for a Lipschitz discriminator: use a ``GradientPenalty``.

    References:
        Arjovsky et al., arXiv:1701.07875, equations 2 and 3.
    """

    couples_scores = False

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return fake.mean() - real.mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return -fake.mean()


class LipschitzAlphaLoss(GANLoss):
    """D: f*(fake) - real; G: -f*(fake), with f* the conjugate of f(x) = (x^alpha - 1) / (alpha (alpha - 1)):

        f*(y) = ((alpha - 1) max(y, 0))^(alpha / (alpha - 1)) / alpha + 1 / (alpha (alpha - 1)).

    The largest value of real - f*(fake) over all discriminators is the alpha-divergence of the data from the
    samples; over Lipschitz ones (use a ``LipschitzPenalty``) it is the Lipschitz-regularised one. The form of
    the structure-preserving GANs is alpha = 2 with a penalty of weight 10.

    Args:
        alpha: above 1.

    References:
        Birrell et al., arXiv:2202.01129, section 5, after Birrell et al., arXiv:2011.05953.
    """

    couples_scores = False

    def __init__(self, alpha: float = 2.0) -> None:
        if alpha <= 1:
            raise ValueError(f"expected alpha above 1, got {alpha}; 2 is the usual choice")
        self.alpha = alpha

    def conjugate(self, y: Scores) -> Scores:
        """f*, element by element."""
        power = self.alpha / (self.alpha - 1)
        return ((self.alpha - 1) * F.relu(y)) ** power / self.alpha + 1 / (self.alpha * (self.alpha - 1))

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return self.conjugate(fake).mean() - real.mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return -self.conjugate(fake).mean()
