"""Augmentation of the game: real and generated images are changed alike before the discriminator sees them.

The change must let gradients through to the generator. Rotations, flips, shifts and group elements are those
of ``eqgan.data.augment``; here are changes of colour, cut-outs and scales, and what chooses among them. Draws
come from torch's global generator of the images' device, whose state is in every checkpoint.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from eqgan.data.augment import (
    BLACK,
    Augmentation,
    Compose,
    GroupAugmentation,
    RandomFlip,
    RandomRotation,
    shift,
    warp,
)
from eqgan.groups import P4

Images = Float[Tensor, "batch channels height width"]
PerImage = Float[Tensor, "batch"]


class RandomColour(Augmentation):
    """Brightness x + b, saturation s and contrast c about the means, each image by its own b, s, c.

    b ~ U[-0.5, 0.5] * strength, s ~ 1 + U[-1, 1] * strength, c ~ 1 + U[-0.5, 0.5] * strength. Saturation does
    nothing to grey images. Values may leave [-1, 1]: cutting them off would lose gradients.

    Args:
        strength: 1 in the paper.

    References:
        Zhao et al., arXiv:2006.10738 (DiffAugment).
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not 0 < strength <= 1:
            raise ValueError(f"expected a strength in (0, 1], got {strength}")
        self.strength = strength

    def __call__(self, x: Images) -> Images:
        drawn = (torch.rand(3, len(x), device=x.device, dtype=x.dtype) - 0.5) * self.strength
        return recolour(x, drawn[0], 1 + 2 * drawn[1], 1 + drawn[2])


class RandomCutout(Augmentation):
    """Blacken a rectangle of each image, at a place of its own that may reach over the border.

    Args:
        share: sides of the rectangle, of those of the image.

    References:
        DeVries & Taylor, arXiv:1708.04552; in the game: Zhao et al., arXiv:2006.10738 (there it is grey).
    """

    def __init__(self, share: float = 0.5) -> None:
        if not 0 < share < 1:
            raise ValueError(f"expected a share of the sides in (0, 1), got {share}")
        self.share = share

    def __call__(self, x: Images) -> Images:
        height, width = x.shape[2:]
        rows, columns = (torch.randint(n + 1, (len(x),), device=x.device) for n in (height, width))
        return cut_out(x, rows, columns, round(self.share * height), round(self.share * width))


class RandomTranslation(Augmentation):
    """Move each image by whole pixels, up to a share of its sides.

    Args:
        share: of the sides; 1/8 in the papers.
    """

    def __init__(self, share: float = 0.125) -> None:
        if not 0 < share < 1:
            raise ValueError(f"expected a share of the sides in (0, 1), got {share}")
        self.share = share

    def __call__(self, x: Images) -> Images:
        down, right = (
            torch.randint(-most, most + 1, (len(x),), device=x.device)
            for most in (round(self.share * n) for n in x.shape[2:])
        )
        return shift(x, down, right)


class RandomScale(Augmentation):
    """Enlarge or shrink each image about its centre by 2^n, n ~ N(0, deviation^2).

    Args:
        deviation: 0.2 in the paper.

    References:
        Karras et al., arXiv:2006.06676, appendix B.
    """

    def __init__(self, deviation: float = 0.2) -> None:
        if deviation <= 0:
            raise ValueError(f"expected a deviation above 0, got {deviation}")
        self.deviation = deviation

    def __call__(self, x: Images) -> Images:
        drawn = torch.randn(len(x), device=x.device, dtype=x.dtype)
        return zoom(x, torch.exp2(self.deviation * drawn))


class DiffAugment(Compose):
    """Differentiable augmentation: colour, translation and cut-out, one after the other, to every image.

    Args:
        colour, translation, cutout: which of them.

    References:
        Zhao et al., arXiv:2006.10738, sections 3.2 and 4 (the policy "color, translation, cutout").
    """

    def __init__(self, colour: bool = True, translation: bool = True, cutout: bool = True) -> None:
        chosen = (colour and RandomColour(), translation and RandomTranslation(), cutout and RandomCutout())
        super().__init__([part for part in chosen if part])
        if not self.augmentations:
            raise ValueError("expected at least one of colour, translation, cutout; or --augment none")


def default_pipeline() -> tuple[Augmentation, ...]:
    """Pixel moves, geometry and colour: flips, quarter turns, shifts, rotations, scales, colours."""
    return (
        RandomFlip(),
        GroupAugmentation(P4),
        RandomTranslation(),
        RandomScale(),
        RandomRotation(),
        RandomColour(),
    )


class AdaptiveAugmentation(nn.Module, Augmentation):
    """Each change of a pipeline is made to each image with a probability that follows the discriminator.

    Where the discriminator is sure of the real images it has begun to learn them by heart. The statistic is
    the mean sign of its scores of reals over ``interval`` batches; above ``target`` the probability rises by
    their share of ``images``, below it falls.

    Args:
        pipeline: changes, in order.
        target: of the statistic.
        interval: batches between two steps of the probability.
        images: real images it takes from probability 0 to 1.

    References:
        Karras et al., arXiv:2006.06676, section 3 (ADA): target 0.6, every 4 batches, 500,000 images.
    """

    probability: Tensor
    signs: Tensor
    seen: Tensor
    batches: Tensor

    def __init__(
        self,
        pipeline: Sequence[Augmentation] | None = None,
        target: float = 0.6,
        interval: int = 4,
        images: int = 500_000,
    ) -> None:
        super().__init__()
        if not -1 < target < 1 or interval < 1 or images < 1:
            raise ValueError(
                "expected a target in (-1, 1), interval and images of at least 1, got "
                f"target={target}, interval={interval}, images={images}"
            )
        self.pipeline = tuple(default_pipeline() if pipeline is None else pipeline)
        if not self.pipeline:
            raise ValueError("expected at least one change in the pipeline; or --augment none")
        self.target, self.interval, self.images = target, interval, images
        for name in ("probability", "signs", "seen", "batches"):
            self.register_buffer(name, torch.zeros(()))

    def forward(self, x: Images) -> Images:
        for change in self.pipeline:
            chosen = torch.rand(len(x), 1, 1, 1, device=x.device) < self.probability
            x = torch.where(chosen, change(x), x)
        return x

    @torch.no_grad()
    def observe(self, real: PerImage, level: Tensor | float = 0.0) -> None:
        """Takes note of the scores of a batch of real images, without waiting for the device.

        Args:
            real: scores.
            level: above which a score counts as sure; of a relativistic discriminator, whose scores have no
                zero of their own, the mean score of the generated images.
        """
        self.signs += (real - level).sign().sum()
        self.seen += len(real)
        self.batches += 1
        due = self.batches % self.interval == 0
        step = torch.sign(self.signs / self.seen - self.target) * self.seen / self.images
        self.probability.copy_(torch.where(due, (self.probability + step).clamp(0, 1), self.probability))
        self.signs.mul_(~due), self.seen.mul_(~due)


def recolour(x: Images, brightness: PerImage, saturation: PerImage, contrast: PerImage) -> Images:
    """Image i brighter by ``brightness[i]``, then its distances from grey, then from its mean, enlarged.

    Example:
        >>> one = torch.ones(1)
        >>> recolour(torch.zeros(1, 1, 2, 2), 0.5 * one, one, one).unique().tolist()
        [0.5]
    """
    brightness, saturation, contrast = (v.view(-1, 1, 1, 1) for v in (brightness, saturation, contrast))
    x = x + brightness
    grey = x.mean(1, keepdim=True)
    x = grey + saturation * (x - grey)
    mean = x.mean((1, 2, 3), keepdim=True)
    return mean + contrast * (x - mean)


def cut_out(
    x: Images, rows: Int64[Tensor, "batch"], columns: Int64[Tensor, "batch"], height: int, width: int
) -> Images:
    """Black from row ``rows[i] - height // 2`` on, ``height`` rows and ``width`` columns, what is inside."""
    inside = [
        ((at >= start[:, None] - length // 2) & (at < start[:, None] - length // 2 + length))
        for at, start, length in (
            (torch.arange(x.shape[2], device=x.device), rows, height),
            (torch.arange(x.shape[3], device=x.device), columns, width),
        )
    ]
    hole = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return torch.where(hole, BLACK, x)


def zoom(x: Images, factor: PerImage) -> Images:
    """Image i enlarged ``factor[i]`` times about its centre, bilinear; black comes in from outside."""
    return warp(x, torch.eye(2, device=x.device) / factor[:, None, None])
