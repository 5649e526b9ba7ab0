"""Scores of class-conditional samples: the distance within each class, and whether the class is right."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jaxtyping import Float, Int64
from torch import Tensor

from .frechet import FeatureStatistics, frechet_distance


@dataclass(frozen=True)
class ClassScores:
    """Scores of samples that were asked for by class.

    Args:
        intra_fid: mean over the classes of the Fréchet distance within each; None if no class has one.
        by_class: that distance, None for a class of fewer than 2 samples.
        accuracy: share of the samples that a classifier takes for the class they were asked for, in [0, 1];
            None without a classifier.
    """

    intra_fid: float | None
    by_class: tuple[float | None, ...]
    accuracy: float | None

    def as_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)


def intra_class_distances(
    features: Float[Tensor, "samples features"],
    labels: Int64[Tensor, " samples"],
    references: Sequence[FeatureStatistics],
) -> tuple[float | None, ...]:
    """The Fréchet distance of the samples of each class from the real images of that class.

    A distance over few samples is biased upwards: compare only distances over equal numbers.

    Args:
        features: of generated images.
        labels: the class each was asked for, 0 to len(references) - 1.
        references: of the real images of each class, on the same features.

    Returns:
        One a class; None for a class of fewer than 2 samples.

    Raises:
        ValueError: for labels that are no class.

    References:
        Miyato & Koyama, arXiv:1802.05637, section 4 (intra FID).
    """
    if not ((labels >= 0) & (labels < len(references))).all():
        raise ValueError(
            f"expected labels from 0 to {len(references) - 1}, got {labels.min().item()} to "
            f"{labels.max().item()}"
        )
    parts = [features[labels == label] for label in range(len(references))]
    return tuple(
        None if len(part) < 2 else frechet_distance(real, FeatureStatistics.from_features(part)).item()
        for part, real in zip(parts, references)
    )


def score_classes(
    features: Float[Tensor, "samples features"],
    labels: Int64[Tensor, " samples"],
    references: Sequence[FeatureStatistics],
    guesses: Int64[Tensor, " samples"] | None = None,
) -> ClassScores:
    """The intra-class distances, their mean, and the accuracy of a classifier's guesses.

    Example:
        >>> import torch
        >>> x = torch.arange(8.0).view(4, 2).sin()
        >>> labels = torch.tensor([0, 0, 1, 1])
        >>> real = [FeatureStatistics.from_features(x[labels == label]) for label in (0, 1)]
        >>> scores = score_classes(x, labels, real, torch.tensor([0, 1, 1, 1]))
        >>> round(scores.intra_fid, 9), scores.accuracy
        (0.0, 0.75)
    """
    distances = intra_class_distances(features, labels, references)
    known = [d for d in distances if d is not None]
    return ClassScores(
        intra_fid=sum(known) / len(known) if known else None,
        by_class=distances,
        accuracy=None if guesses is None else class_accuracy(guesses, labels),
    )


def class_accuracy(guesses: Int64[Tensor, " samples"], labels: Int64[Tensor, " samples"]) -> float:
    """The share of the samples whose class was guessed as the one they were asked for."""
    return (guesses == labels).double().mean().item()
