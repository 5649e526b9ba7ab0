"""Adversarial losses as small objects: each turns scores into one number to minimise."""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

Scores = Float[Tensor, "batch"]
Scalar = Float[Tensor, ""]


class GANLoss(ABC):
    """What the discriminator and the generator minimise.

    Attributes:
        generator_sees_reals: whether the generator's loss needs the scores of real images as well.
    """

    generator_sees_reals = False

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
        >>> zero = torch.zeros(4)
        >>> round(NonSaturatingLoss().discriminator(zero, zero).item(), 4)  # 2 log 2
        1.3863
    """

    def discriminator(self, real: Scores, fake: Scores) -> Scalar:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    def generator(self, fake: Scores, real: Scores | None = None) -> Scalar:
        return F.softplus(-fake).mean()


class HingeLoss(GANLoss):
    """D: max(0, 1 - real) + max(0, 1 + fake); G: -fake.

    References:
        Lim & Ye, arXiv:1705.02894; Miyato et al., arXiv:1802.05957, equations 16 and 17.
    """

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


class R1Penalty:
    """(gamma / 2) E |grad D(x)|^2 over real images, every ``every`` steps with the weight made up for.

    Args:
        gamma: weight; 0 switches it off.
        every: lazy regularisation interval in discriminator steps.

    References:
        Mescheder et al., arXiv:1801.04406, equation 9; lazily as in Karras et al., arXiv:1912.04958.
    """

    def __init__(self, gamma: float = 0.1, every: int = 8) -> None:
        if gamma < 0 or every < 1:
            raise ValueError(f"expected gamma >= 0 and every >= 1, got gamma={gamma}, every={every}")
        self.gamma, self.every = gamma, every

    def due(self, step: int) -> bool:
        return self.gamma > 0 and step % self.every == 0

    def __call__(self, discriminator: nn.Module, real: Float[Tensor, "batch channels h w"]) -> Scalar:
        """The penalty, differentiable in the discriminator's weights (double backward)."""
        real = real.detach().requires_grad_(True)
        (gradient,) = torch.autograd.grad(discriminator(real).sum(), real, create_graph=True)
        return 0.5 * self.gamma * self.every * gradient.square().sum((1, 2, 3)).mean()
