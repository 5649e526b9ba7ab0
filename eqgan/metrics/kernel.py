"""Kernel distance: the unbiased squared maximum mean discrepancy between two sets of features."""

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from ._checks import check_same_width, checked_features

_ENTRIES = 2**22  # of kernel matrix held at once (32 MB)


def kernel_distance(
    real: Float[Tensor, "real features"],
    fake: Float[Tensor, "fake width"],
    degree: int = 3,
    subset_size: int = 1000,
    subsets: int = 100,
    generator: torch.Generator | None = None,
) -> tuple[Float64[Tensor, ""], Float64[Tensor, ""]]:
    """Mean and standard deviation, over random subsets, of the unbiased MMD^2 with a polynomial kernel (KID).

    ``k(x, y) = (x.y / features + 1)^degree``
    ``MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)``

    Unbiased, so it may be slightly negative for equal distributions, and its mean does not depend on the
    number of samples as the Fréchet distance does.

    Args:
        real: features of real samples, finite.
        fake: features of generated samples, same width.
        degree: of the polynomial, at least 1.
        subset_size: samples per subset and side, drawn without replacement; at least 2, at most either set.
        subsets: how many are drawn.
        generator: source of the subsets; with the same seed the result is the same. None draws from torch's
            global one.

    Returns:
        Mean and standard deviation (of the population of subsets), float64 scalars.

    Raises:
        ValueError: Sizes out of range, other width, empty or non-finite features.

    References:
        Bińkowski et al. 2018, arXiv:1801.01401, section 4 (kernel and estimator).

    >>> x = torch.arange(40.0).sin().reshape(20, 2)
    >>> mean, std = kernel_distance(x, x + 1, subset_size=20, subsets=2)
    >>> bool(mean > 0), round(std.item(), 9)  # whole sets: every subset is the same
    (True, 0.0)
    """
    if degree < 1 or subset_size < 2 or subsets < 1:
        raise ValueError(
            f"degree={degree}, subset_size={subset_size}, subsets={subsets}: "
            "expected at least 1, 2 and 1. The usual values are 3, 1000 and 100."
        )
    real, fake = checked_features(real, "real features"), checked_features(fake, "fake features")
    check_same_width(real, fake)
    smaller = min(len(real), len(fake))
    if subset_size > smaller:
        raise ValueError(
            f"subset_size={subset_size}, but there are {len(real)} real and {len(fake)} fake samples. "
            f"Pass subset_size={smaller} or less, or more samples."
        )
    fake = fake.to(real.device)
    real_rows = _subset_rows(len(real), subset_size, subsets, generator).to(real.device)
    fake_rows = _subset_rows(len(fake), subset_size, subsets, generator).to(real.device)
    at_once = max(1, _ENTRIES // subset_size**2)
    values = torch.cat(
        [_mmd(real[x], fake[y], degree) for x, y in zip(real_rows.split(at_once), fake_rows.split(at_once))]
    )
    return values.mean(), values.std(correction=0)


def _subset_rows(
    total: int, size: int, subsets: int, generator: torch.Generator | None
) -> Int[Tensor, "subsets size"]:
    device = generator.device if generator is not None else "cpu"
    draws = [torch.randperm(total, generator=generator, device=device)[:size] for _ in range(subsets)]
    return torch.stack(draws)


def _mmd(
    x: Float64[Tensor, "subsets size features"], y: Float64[Tensor, "subsets size features"], degree: int
) -> Float64[Tensor, " subsets"]:
    """Unbiased MMD^2 of each subset."""
    size = x.shape[1]

    def total(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT).div_(a.shape[2]).add_(1).pow_(degree).sum(dim=(1, 2))

    def off_diagonal(a: Tensor) -> Tensor:
        diagonal = (a.square().sum(dim=2) / a.shape[2] + 1).pow(degree).sum(dim=1)
        return (total(a, a) - diagonal) / (size * (size - 1))

    return off_diagonal(x) + off_diagonal(y) - 2 * total(x, y) / size**2
