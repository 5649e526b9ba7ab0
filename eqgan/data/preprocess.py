"""Contrast normalisation and whitening: fitted once on training images, applied to batches on their device.

Modules with buffers, to be put in front of a network: a checkpoint of the two holds what was fitted, and an
image needs no other treatment than during training.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from math import prod

import torch
from jaxtyping import Float, Float64, UInt8
from torch import Tensor, nn

from eqgan.groups import Z2, PlaneGroup, scalar
from eqgan.nn import act

_LARGEST = 8192  # values in an image: the square of it is stored
_CHUNK = 1024  # images at a time


Images = UInt8[Tensor, "n channels height width"] | Iterable[Tensor]


class Preprocessing(nn.Module, ABC):
    """What is done to images in [-1, 1] before a network sees them.

    Args:
        image_shape: (channels, height, width).
    """

    def __init__(self, image_shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.image_shape = tuple(image_shape)

    @abstractmethod
    def fit(self, images: Images) -> "Preprocessing":
        """Take from the training images what is needed; returns the module itself.

        Args:
            images: all of them, or blocks that come one after the other.
        """

    def commutes_with(self, group: PlaneGroup) -> bool:
        """Whether an image that is moved by the group and then preprocessed is one preprocessed and moved."""
        return group.order == 1

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the preprocessed images, which have no fixed range."""


class ContrastNormalization(Preprocessing):
    """Global contrast normalisation: each image has mean 0 and standard deviation 1, over all its channels.

        x' = (x - mean(x)) / max(std(x), eps)

    Commutes with everything that only moves pixels about, hence with quarter turns and mirrors.

    Args:
        image_shape: (channels, height, width).
        eps: least deviation that is divided by, in units of [-1, 1]; one grey level by default, so that
            nearly flat images are not blown up.

    References:
        Coates, Lee and Ng, "An analysis of single-layer networks in unsupervised feature learning", 2011.
    """

    def __init__(self, image_shape: tuple[int, int, int], eps: float = 1 / 127.5) -> None:
        super().__init__(image_shape)
        if not eps > 0:
            raise ValueError(f"expected eps above 0, got {eps}. 0.0078 is one grey level.")
        self.eps = eps

    def fit(self, images: Images) -> "Preprocessing":
        """Nothing is fitted: each image is normalised by itself."""
        return self

    def commutes_with(self, group: PlaneGroup) -> bool:
        return True

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        centred = x - x.mean((1, 2, 3), keepdim=True)
        deviation = centred.square().mean((1, 2, 3), keepdim=True).sqrt()
        return centred / deviation.clamp_min(self.eps)


class ZCAWhitening(Preprocessing):
    """Contrast normalisation, then the whitening that changes images least.

    With the mean m and the covariance C = U diag(v) U^T of the contrast-normalised training images:

        x' = U diag(v + eps)^(-1/2) U^T (x - m)

    With a group other than z2, m and C are averaged over the images moved by its elements, so that whitening
    commutes with the group, and an invariant network behind it stays invariant.

    Args:
        image_shape: (channels, height, width), of at most 8,192 values.
        eps: added to the variances; contrast-normalised images have a mean variance of at most 1.
        group: of the square lattice; None is z2 (``eqgan classify`` takes that of the network).

    Raises:
        ValueError: an argument out of range.
        RuntimeError: used before it is fitted or loaded.

    References:
        Krizhevsky, "Learning multiple layers of features from tiny images", 2009, appendix A (eps = 0 there);
        Goodfellow et al., "Maxout networks", arXiv:1302.4389 (contrast normalisation first, eps = 0.1).
    """

    mean: Tensor
    whitening: Tensor
    fitted: Tensor

    def __init__(
        self, image_shape: tuple[int, int, int], eps: float = 0.1, group: PlaneGroup | None = None
    ) -> None:
        super().__init__(image_shape)
        group = group or Z2
        size = prod(image_shape)
        if not eps > 0 or size > _LARGEST:
            raise ValueError(
                f"expected eps above 0 and images of at most {_LARGEST:,} values (the square of that is "
                f"stored), got {eps} and {size:,}. Use ContrastNormalization for larger images."
            )
        turns = any(abs(element[0, 1]) == 1 for element in group.point_group.elements)
        if group.lattice != "square" or (turns and image_shape[1] != image_shape[2]):
            raise ValueError(
                f"expected a group of the square lattice, and square images under quarter turns, got {group} "
                f"and {image_shape}. Use z2."
            )
        self.contrast = ContrastNormalization(image_shape)
        self.eps, self.group = eps, group
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("whitening", torch.zeros(size, size))
        self.register_buffer("fitted", torch.tensor(False))
        self._known = False  # asking a buffer on an accelerator costs a synchronisation: once is enough

    @torch.no_grad()
    def fit(self, images: Images) -> "Preprocessing":
        """Compute mean and whitening in float64: one pass over the images, then one eigendecomposition.

        Takes about half a minute on one core for 17,000 RGB images of 32 x 32.

        Raises:
            ValueError: no images, or of another shape.
        """
        mean, squares = self._moments(images.split(_CHUNK) if isinstance(images, Tensor) else images)
        pixels = self._moves(mean.device)
        mean = torch.stack([mean[p] for p in pixels]).mean(0)
        variances, axes = torch.linalg.eigh(_average(squares, pixels) - torch.outer(mean, mean))
        whitening = (axes * (variances.clamp_min(0) + self.eps).rsqrt()) @ axes.T
        self.mean.copy_(mean)
        self.whitening.copy_(_average(whitening, pixels))
        self.fitted.fill_(True)
        return self

    def forward(
        self, x: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        if not self._known:
            if not self.fitted:
                raise RuntimeError(
                    "expected a fitted whitening: call fit(images) or load a checkpoint first."
                )
            self._known = True
        centred = self.contrast(x).flatten(1) - self.mean
        return (centred @ self.whitening).view_as(x)  # the matrix is symmetric

    def commutes_with(self, group: PlaneGroup) -> bool:
        return self.group.contains(group)

    def _moments(self, parts: Iterable[Tensor]) -> tuple[Float64[Tensor, " d"], Float64[Tensor, "d d"]]:
        """Return the means of values and of products of two values of the contrast-normalised images."""
        count, size = 0, len(self.mean)
        total, squares = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64)
        for part in parts:
            if tuple(part.shape[1:]) != self.image_shape:
                raise ValueError(
                    f"expected images of shape {self.image_shape}, got {tuple(part.shape)}. Build the module "
                    "with the shape of the images."
                )
            rows = self.contrast(part.double() / 127.5 - 1).flatten(1)
            total, squares = total.to(rows.device), squares.to(rows.device)
            total += rows.sum(0)
            squares.addmm_(rows.T, rows)
            count += len(rows)
        if not count:
            raise ValueError(f"expected images of shape {self.image_shape} to fit to, got none.")
        return total / count, squares / count

    def _moves(self, device: torch.device) -> list[Tensor]:
        """Return, for each element of the group, which value each value of a moved image comes from."""
        numbers = torch.arange(prod(self.image_shape)).view(1, *self.image_shape)
        field_type = scalar(self.group, self.image_shape[0])
        return [act(g, numbers, field_type).flatten().to(device) for g in range(self.group.order)]


def _average(matrix: Tensor, moves: list[Tensor]) -> Tensor:
    """Return the mean over the group of a matrix with rows and columns moved alike."""
    total = torch.zeros_like(matrix)
    for pixels in moves:
        total += matrix[pixels][:, pixels]
    return total / len(moves)
