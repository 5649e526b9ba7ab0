"""Precision, recall, density, coverage: what balls around nearest neighbours say of two sets."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ._checks import check_same_width, checked_features
from .features import apply_features

_ROWS = 512  # rows of a distance matrix held at once: 40 MB against 10,000 columns
_TIE = 16 * torch.finfo(torch.float64).eps  # times the root of the width: rounding of a squared distance


class Neighbours(NamedTuple):
    """Four scalars (float64). All in [0, 1], except density, which may pass 1; higher is better."""

    precision: Tensor
    recall: Tensor
    density: Tensor
    coverage: Tensor


def precision_recall_density_coverage(
    real: Float[Tensor, "real features"], fake: Float[Tensor, "fake width"], k: int = 5
) -> Neighbours:
    """How much of the fakes lies near reals, and how much of the reals is reached by fakes.

    With B(x) the closed ball around x that reaches its k-th nearest neighbour in its own set, x itself not
    counted:

    - precision: share of fakes inside the ball of any real,
    - recall: share of reals inside the ball of any fake,
    - density: number of real balls a fake lies in, divided by k, mean over fakes,
    - coverage: share of real balls that hold any fake.

    Squared distances come from one float64 matrix product per block of rows, on features centred first.
    Those that differ by rounding only (16 eps sqrt(features) of the squared norms) count as equal, hence as
    inside, so that duplicates and points on a grid give what exact arithmetic gives. Time
    O((real + fake)^2 features); memory O(512 max(real, fake)).

    Args:
        real: features of real samples, finite.
        fake: features of generated samples, same width.
        k: which neighbour bounds the ball, at least 1 and less than either number of samples.

    Returns:
        The four, as float64 scalars.

    Raises:
        ValueError: `k` out of range, other width, empty or non-finite features.

    References:
        Kynkäänniemi et al. 2019, arXiv:1904.06991, eqs. 1 and 2 (precision, recall).
        Naeem et al. 2020, arXiv:2002.09797, section 3 (density, coverage). Their published code has open
        balls, which differ from closed ones on ties only.

    >>> real = torch.tensor([[0.0], [1.0], [2.0], [9.0]])
    >>> fake = torch.tensor([[0.5], [1.5], [30.0]])
    >>> [round(value.item(), 3) for value in precision_recall_density_coverage(real, fake, k=1)]
    [0.667, 1.0, 1.333, 0.75]
    """
    if k < 1:
        raise ValueError(f"k={k}: the neighbour that bounds a ball is at least the first. Use k=5.")
    real = checked_features(real, "real features", minimum=k + 1)
    fake = checked_features(fake, "fake features", minimum=k + 1).to(real.device)
    check_same_width(real, fake)
    # The product |x|^2 + |y|^2 - 2 x.y cancels badly far from the origin.
    centre = torch.cat([real, fake]).mean(dim=0)
    real, fake = real - centre, fake - centre
    return _count(real, fake, _squared_radii(real, k), _squared_radii(fake, k), k)


def _squared_radii(points: Float64[Tensor, "points features"], k: int) -> Float64[Tensor, " points"]:
    """Squared distance of each point to its k-th nearest neighbour, itself not counted."""
    norms = points.square().sum(dim=1)
    radii = []
    for start in range(0, len(points), _ROWS):
        rows = points[start : start + _ROWS]
        # |row|^2 is the same along a row: it does not change the order and is added to the k-th only.
        distances = torch.addmm(norms[None], rows, points.T, alpha=-2)
        distances.diagonal(offset=start).fill_(torch.inf)
        # topk is 15 times faster than kthvalue here (10,000 columns).
        radii.append(distances.topk(k, dim=1, largest=False).values.amax(dim=1))
    return torch.cat(radii) + norms


def _count(
    real: Float64[Tensor, "real features"],
    fake: Float64[Tensor, "fake features"],
    real_radii: Float64[Tensor, " real"],
    fake_radii: Float64[Tensor, " fake"],
    k: int,
) -> Neighbours:
    """The four shares, from blocks of the distance matrix between reals and fakes."""
    shrink = 1 - _TIE * real.shape[1] ** 0.5  # of the norms, hence of distances: a tie is inside
    real_norms, fake_norms = (points.square().sum(dim=1) * shrink for points in (real, fake))
    precise = torch.zeros(len(fake), dtype=torch.bool, device=real.device)
    recalled, covered, inside_all = [], [], 0
    for start in range(0, len(real), _ROWS):
        block = slice(start, start + _ROWS)
        distances = torch.addmm(fake_norms[None], real[block], fake.T, alpha=-2).add_(real_norms[block, None])
        inside = distances <= real_radii[block, None]
        precise |= inside.any(dim=0)
        covered.append(inside.any(dim=1))
        inside_all += inside.count_nonzero()
        recalled.append((distances <= fake_radii[None]).any(dim=1))
    return Neighbours(
        precision=precise.double().mean(),
        recall=torch.cat(recalled).double().mean(),
        density=inside_all.double() / (k * len(fake)),
        coverage=torch.cat(covered).double().mean(),
    )


class PrecisionRecallDensityCoverage(Metric):
    """The four shares over the images seen, as a torchmetrics metric that keeps the features of both sets.

    Args:
        features: network or callable from images to `(samples, features)`; a `FeatureExtractor` is one.
        k: which neighbour bounds a ball.
        kwargs: passed to `torchmetrics.Metric`.

    >>> metric = PrecisionRecallDensityCoverage(nn.Flatten(), k=1)
    >>> images = torch.arange(4.0).reshape(4, 1, 1, 1)
    >>> metric.update(images, real=True)
    >>> metric.update(images, real=False)
    >>> metric.compute()["coverage"]
    tensor(1., dtype=torch.float64)
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False

    def __init__(self, features: nn.Module | Callable[[Tensor], Tensor], k: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.k = k
        self.add_state("real", default=[], dist_reduce_fx="cat")
        self.add_state("fake", default=[], dist_reduce_fx="cat")

    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch `(N, C, H, W)` of reals or of fakes."""
        (self.real if real else self.fake).append(apply_features(self.features, images))

    def compute(self) -> dict[str, Tensor]:
        """`{"precision", "recall", "density", "coverage"}`: see `precision_recall_density_coverage`.

        Raises:
            ValueError: At most `k` images on either side.
        """
        for kind in ("real", "fake"):
            if not len(getattr(self, kind)):
                raise ValueError(
                    f"no {kind} images were seen: call update(images, real={kind == 'real'}) first."
                )
        scores = precision_recall_density_coverage(dim_zero_cat(self.real), dim_zero_cat(self.fake), self.k)
        return scores._asdict()
