"""Fréchet distance between Gaussians fitted to two sets of features, and the sums it is computed from."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor, nn
from torchmetrics import Metric

from ._checks import checked_features
from .features import apply_features


@dataclass(frozen=True, eq=False)
class FeatureStatistics:
    """Mean and covariance of a set of features, on the CPU in float64.

    Args:
        mean: `(features,)`.
        covariance: `(features, features)`, symmetric; unbiased, that is divided by `count - 1`.
        count: number of samples, at least 2.

    Raises:
        ValueError: Shapes that do not belong together, fewer than 2 samples, non-finite values.

    >>> FeatureStatistics.from_features(torch.tensor([[0.0, 1.0], [2.0, 1.0]])).covariance
    tensor([[2., 0.],
            [0., 0.]], dtype=torch.float64)
    """

    mean: Tensor
    covariance: Tensor
    count: int

    def __post_init__(self) -> None:
        width = self.mean.numel()
        if self.mean.shape != (width,) or self.covariance.shape != (width, width) or width == 0:
            raise ValueError(
                f"expected a mean of shape (d,) and a covariance of shape (d, d), "
                f"got {tuple(self.mean.shape)} and {tuple(self.covariance.shape)}."
            )
        if self.count < 2:
            raise ValueError(f"statistics of {self.count} samples: a covariance needs at least 2 samples.")
        for name in ("mean", "covariance"):
            value = getattr(self, name).detach().to("cpu", torch.float64)
            if not value.isfinite().all():
                raise ValueError(f"the {name} is not finite: the features are too large, or hold NaN.")
            object.__setattr__(self, name, value)

    @classmethod
    def from_features(cls, features: Float[Tensor, "samples features"]) -> "FeatureStatistics":
        """Fit to a whole set at once; centred first, so that a large common offset costs no digits.

        Raises:
            ValueError: Fewer than 2 samples, not a matrix, or non-finite rows (says how many).
        """
        features = checked_features(features, "features", minimum=2)
        mean = features.mean(dim=0)
        centred = features - mean
        return cls(mean, centred.T @ centred / (len(features) - 1), len(features))


@dataclass(frozen=True, eq=False)
class FeatureSums:
    """Sums over samples from which statistics follow; sums of parts add up to the sums of the whole.

    Args:
        count: number of samples.
        total: `(features,)` float64, sum of the features.
        outer: `(features, features)` float64, sum of their outer products.

    >>> x = torch.arange(12.0).reshape(6, 2).sin()
    >>> merged = (FeatureSums.from_features(x[:1]) + FeatureSums.from_features(x[1:])).statistics()
    >>> torch.allclose(merged.covariance, FeatureStatistics.from_features(x).covariance)
    True
    """

    count: int
    total: Tensor
    outer: Tensor

    @classmethod
    def from_features(cls, features: Float[Tensor, "samples features"]) -> "FeatureSums":
        """Sums of one batch, of one sample or more, on the device of the batch."""
        features = checked_features(features, "features")
        return cls(len(features), features.sum(dim=0), features.T @ features)

    def __add__(self, other: "FeatureSums") -> "FeatureSums":
        if self.total.shape != other.total.shape:
            raise ValueError(
                f"cannot add sums over {self.total.numel()} features to sums over {other.total.numel()}: "
                "both must come from the same feature network."
            )
        return FeatureSums(self.count + other.count, self.total + other.total, self.outer + other.outer)

    def statistics(self) -> FeatureStatistics:
        """Mean and unbiased covariance.

        Raises:
            ValueError: Fewer than 2 samples in all.
        """
        if self.count < 2:
            raise ValueError(f"statistics of {self.count} samples: a covariance needs at least 2 samples.")
        mean = self.total / self.count
        scatter = self.outer - self.count * torch.outer(mean, mean)
        return FeatureStatistics(mean, (scatter + scatter.T) / (2 * (self.count - 1)), self.count)


def frechet_distance(a: FeatureStatistics, b: FeatureStatistics) -> Float64[Tensor, ""]:
    r"""Squared Fréchet (2-Wasserstein) distance between two Gaussians; FID on a named network's features.

    ``d^2 = |m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a^1/2 S_b S_a^1/2)^1/2)``

    Each covariance is factored by a symmetric eigen-decomposition, ``S = L L^T``, with eigenvalues that are
    zero or negative within rounding dropped. The last trace is then the sum of the singular values of
    ``L_a^T L_b``. This keeps full precision where the root of a product of covariances loses half the
    digits, and needs no inverse: rank-deficient covariances (fewer samples than features, constant
    features) are no special case.

    Args:
        a: statistics of one set.
        b: statistics of the other, over the same features.

    Returns:
        Scalar float64 on the CPU, at least 0, never NaN. Symmetric in its arguments up to rounding.

    Raises:
        ValueError: Different numbers of features.

    References:
        Heusel et al. 2017, arXiv:1706.08500, eq. 6. Dowson & Landau 1982 for the distance.

    >>> a = FeatureStatistics(torch.zeros(2), torch.eye(2), 10)
    >>> b = FeatureStatistics(torch.tensor([3.0, 0.0]), 4 * torch.eye(2), 10)
    >>> frechet_distance(a, b)  # 3^2 + 2 (2 - 1)^2
    tensor(11., dtype=torch.float64)
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(
            f"statistics over {a.mean.numel()} features cannot be compared with statistics over "
            f"{b.mean.numel()}: both must come from the same feature network."
        )
    overlap = torch.linalg.svdvals(_factor(a.covariance).T @ _factor(b.covariance)).sum()
    spread = a.covariance.trace() + b.covariance.trace() - 2 * overlap
    return ((a.mean - b.mean).square().sum() + spread).clamp(min=0)


def _factor(covariance: Float64[Tensor, "features features"]) -> Float64[Tensor, "features rank"]:
    """L with L L^T = covariance, one column for each eigenvalue that is positive beyond rounding."""
    values, vectors = torch.linalg.eigh(covariance)
    positive = values > len(values) * torch.finfo(values.dtype).eps * values[-1].clamp(min=0)
    return vectors[:, positive] * values[positive].sqrt()


class FrechetDistance(Metric):
    """Fréchet distance over the images seen, as a torchmetrics metric; states are sums: exact under DDP.

    Args:
        features: network or callable from images to `(samples, features)`; a `FeatureExtractor` is one. A
            module is run in eval mode without gradients, and its train flags are left as they were.
        reference: statistics of the real images. Given, only fakes are accumulated.
        num_features: width of the features. Taken from `reference` or `features.num_features` where there
            is one; otherwise learned from the first batch, in which case every DDP rank must see a batch.
        kwargs: passed to `torchmetrics.Metric`.

    >>> metric = FrechetDistance(nn.Flatten())
    >>> images = torch.arange(8.0).sin().reshape(4, 1, 1, 2)
    >>> metric.update(images, real=True)
    >>> metric.update(images + 1, real=False)
    >>> round(metric.compute().item(), 6)
    2.0
    """

    higher_is_better = False
    is_differentiable = False
    full_state_update = False

    def __init__(
        self,
        features: nn.Module | Callable[[Tensor], Tensor],
        reference: FeatureStatistics | None = None,
        num_features: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.features = features
        self.reference = reference
        if reference is not None:
            num_features = reference.mean.numel()
        elif num_features is None and isinstance(getattr(features, "num_features", None), int):
            num_features = features.num_features
        vector, matrix = ((), ()) if num_features is None else ((num_features,), (num_features, num_features))
        for kind in ("real", "fake"):
            self.add_state(f"{kind}_count", torch.tensor(0), dist_reduce_fx="sum")
            self.add_state(f"{kind}_total", torch.zeros(vector, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer", torch.zeros(matrix, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor, real: bool) -> None:
        """Add a batch.

        Args:
            images: `(N, C, H, W)`, whatever the feature network takes.
            real: whether they come from the data or from the generator.

        Raises:
            ValueError: Reals although a fixed reference was given, features of another width, non-finite
                features.
        """
        if real and self.reference is not None:
            raise ValueError(
                "this metric was built with a fixed reference and takes fakes only: "
                "drop the update with real=True, or build it with reference=None."
            )
        batch = FeatureSums.from_features(apply_features(self.features, images))
        kind = "real" if real else "fake"
        total = getattr(self, f"{kind}_total")
        if total.ndim and total.shape != batch.total.shape:
            raise ValueError(f"expected {total.numel()} features per sample, got {batch.total.numel()}.")
        for part in ("count", "total", "outer"):
            name = f"{kind}_{part}"
            state = getattr(self, name)
            setattr(self, name, state + torch.as_tensor(getattr(batch, part), device=state.device))

    def _statistics(self, kind: str) -> FeatureStatistics:
        count, total, outer = (getattr(self, f"{kind}_{part}") for part in ("count", "total", "outer"))
        if count < 2:
            raise ValueError(f"got {int(count)} {kind} images, at least 2 are needed: call update first.")
        return FeatureSums(int(count), total, outer).statistics()

    def compute(self) -> Tensor:
        """Distance between the reals (or the reference) and the fakes.

        Raises:
            ValueError: Fewer than 2 images on either side.
        """
        real = self.reference if self.reference is not None else self._statistics("real")
        return frechet_distance(real, self._statistics("fake"))
