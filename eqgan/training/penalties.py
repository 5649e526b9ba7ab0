"""Penalties on the discriminator as small objects: added to its loss, every step or lazily."""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from eqgan.data.augment import Augmentation, RandomShift

Images = Float[Tensor, "batch channels height width"]
Scalar = Float[Tensor, ""]
Score = Callable[[Tensor], Tensor]
"""From images to one number each: the discriminator, with labels filled in and augmentation before it."""


class Penalty(ABC):
    """A number that is added to the discriminator's loss, differentiable in its weights.

    Lazy regularisation (Karras et al., arXiv:1912.04958, appendix B): it is computed every ``every`` steps of
    the discriminator, with a weight that makes up for those left out.

    Args:
        weight: 0 switches it off.
        every: steps between two penalties.
    """

    def __init__(self, weight: float, every: int, name: str = "weight") -> None:
        if weight < 0 or every < 1:
            raise ValueError(f"expected {name} >= 0 and every >= 1, got {name}={weight}, every={every}")
        self.weight, self.every = weight, every

    def due(self, step: int) -> bool:
        """Whether the discriminator's step of this number has a penalty."""
        return self.weight > 0 and step % self.every == 0

    def __call__(self, score: Score, real: Images, fake: Images | None = None) -> Scalar:
        """The penalty, its weight and its interval included.

        Args:
            score: the discriminator.
            real, fake: as many of each; fake may be left out where only real images count.
        """
        return self.weight * self.every * self.value(score, real, fake)

    @abstractmethod
    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        """The penalty for a weight of 1."""


class NoPenalty(Penalty):
    """Never due."""

    def __init__(self) -> None:
        super().__init__(0.0, 1)

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        return real.new_zeros(())


class _OfGradients(Penalty, ABC):
    """(gamma / 2) E |grad D(x)|^2 over some images."""

    def __init__(self, gamma: float = 0.1, every: int = 8) -> None:
        super().__init__(gamma, every, "gamma")


class R1Penalty(_OfGradients):
    """(gamma / 2) E |grad D(x)|^2 over real images.

    References:
        Mescheder et al., arXiv:1801.04406, equation 9.
    """

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        return _half_square(score, real)


class R2Penalty(_OfGradients):
    """(gamma / 2) E |grad D(x)|^2 over generated images.

    References:
        Mescheder et al., arXiv:1801.04406, equation 10.
    """

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        return _half_square(score, _needed(fake, self))


class R1R2Penalty(_OfGradients):
    """The sum of ``R1Penalty`` and ``R2Penalty`` at one gamma, as in R3GAN.

    References:
        Huang et al., arXiv:2501.05441, section 2.2.
    """

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        return _half_square(score, real) + _half_square(score, _needed(fake, self))


class GradientPenalty(Penalty):
    """weight E (|grad D(x)| - 1)^2 at points drawn uniformly between a real and a generated image.

    Args:
        weight: 10 in the paper.
        one_sided: only norms above 1 count, max(0, |grad D| - 1)^2.

    References:
        Gulrajani et al., arXiv:1704.00028, equation 3; one-sided: Petzka et al., arXiv:1709.08894.
    """

    def __init__(self, weight: float = 10.0, one_sided: bool = False, every: int = 1) -> None:
        super().__init__(weight, every)
        self.one_sided = one_sided

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        gradient = _gradient(score, _between(real, _needed(fake, self)))
        excess = torch.linalg.vector_norm(gradient.flatten(1), dim=1) - 1
        return (excess.relu() if self.one_sided else excess).square().mean()


class LipschitzPenalty(Penalty):
    """weight E max(0, |grad D(x)|^2 - 1) at points drawn uniformly between a real and a generated image.

    One-sided and linear in the square of the norm: what the structure-preserving GANs put beside the
    ``LipschitzAlphaLoss``, with a weight of 10.

    References:
        Birrell et al., arXiv:2202.01129, after Birrell et al., arXiv:2011.05953.
    """

    def __init__(self, weight: float = 10.0, every: int = 1) -> None:
        super().__init__(weight, every)

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        gradient = _gradient(score, _between(real, _needed(fake, self)))
        return (gradient.square().sum((1, 2, 3)) - 1).relu().mean()


class ConsistencyPenalty(Penalty):
    """weight E (D(x) - D(T x))^2 over real images and, if balanced, over generated ones too.

    Args:
        augmentation: T, a random change that leaves what is shown the same; None: ``RandomShift``.
        weight: 10 in the papers.
        balanced: whether generated images count as well.

    References:
        Zhang et al., arXiv:1910.12027, equation 3; balanced: Zhao et al., arXiv:2002.04724, algorithm 1.
    """

    def __init__(
        self,
        augmentation: Augmentation | None = None,
        weight: float = 10.0,
        balanced: bool = False,
        every: int = 1,
    ) -> None:
        super().__init__(weight, every)
        self.augmentation, self.balanced = augmentation or RandomShift(), balanced

    def value(self, score: Score, real: Images, fake: Images | None) -> Scalar:
        value = self._distance(score, real)
        return value + self._distance(score, _needed(fake, self)) if self.balanced else value

    def _distance(self, score: Score, x: Tensor) -> Tensor:
        return (score(x) - score(self.augmentation(x))).square().mean()


def _gradient(score: Score, x: Tensor) -> Tensor:
    """grad D at x, itself differentiable in the weights of D."""
    x = x.detach().requires_grad_(True)
    return torch.autograd.grad(score(x).sum(), x, create_graph=True)[0]


def _half_square(score: Score, x: Tensor) -> Tensor:
    return 0.5 * _gradient(score, x).square().sum((1, 2, 3)).mean()


def _between(real: Tensor, fake: Tensor) -> Tensor:
    """A uniform point on the segment from each real image to a generated one."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device, dtype=real.dtype)
    return torch.lerp(real.detach(), fake.detach().to(real.dtype), share)


def _needed(fake: Tensor | None, penalty: Penalty) -> Tensor:
    if fake is None:
        raise ValueError(f"{type(penalty).__name__} needs generated images")
    return fake
