"""How well logits tell classes apart: error, cross entropy, area under the ROC curve, confusion matrix."""

from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from scipy.stats import rankdata
from torch import Tensor


@dataclass(frozen=True)
class ClassificationScores:
    """What one set of images gave.

    Attributes:
        count: images.
        error: share whose class was missed, 0 to 1.
        loss: mean cross entropy, in nats.
        auc: see ``roc_auc``; None where a class has no image.
        confusion: row: true class, column: predicted class; counts.
    """

    count: int
    error: float
    loss: float
    auc: float | None
    confusion: list[list[int]]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def classification_scores(
    logits: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]
) -> ClassificationScores:
    """Every score of these logits, computed in float64.

    Raises:
        ValueError: for no images, or labels that are not classes.
    """
    logits, labels = logits.double().cpu(), labels.cpu()
    confusion = confusion_matrix(logits.argmax(1), labels, logits.shape[1])
    return ClassificationScores(
        count=len(labels),
        error=1 - confusion.diagonal().sum().item() / len(labels),
        loss=F.cross_entropy(logits, labels).item(),
        auc=roc_auc(logits.softmax(1), labels),
        confusion=confusion.tolist(),
    )


def confusion_matrix(
    predicted: Int64[Tensor, " images"], labels: Int64[Tensor, " images"], classes: int
) -> Int64[Tensor, "classes classes"]:
    """Counts of (true class, predicted class).

    Raises:
        ValueError: for no images, or labels that are not classes.

    >>> confusion_matrix(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    if not len(labels) or labels.min() < 0 or labels.max() >= classes:
        found = f"{labels.min().item()} to {labels.max().item()}" if len(labels) else "no images"
        raise ValueError(f"expected labels from 0 to {classes - 1}, got {found}")
    return torch.bincount(labels * classes + predicted, minlength=classes**2).view(classes, classes)


def roc_auc(probabilities: Float[Tensor, "images classes"], labels: Int64[Tensor, " images"]) -> float | None:
    """Area under the ROC curve: of class 1 of two; of more, the mean over classes of one against the rest.

    It is the chance that an image of the class is given a higher probability of it than an image of another
    class, ties counting half (the Mann-Whitney statistic, from ranks).

    Returns:
        0 to 1, or None where a class has no image, or all of them.

    >>> roc_auc(torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]), torch.tensor([0, 1, 1]))
    1.0
    """
    classes = probabilities.shape[1]
    counts = torch.bincount(labels, minlength=classes)
    if (counts == 0).any():
        return None
    areas = []
    for index in (1,) if classes == 2 else range(classes):
        ranks = torch.from_numpy(rankdata(probabilities[:, index].numpy()))
        mine = counts[index].item()
        above = ranks[labels == index].sum().item() - mine * (mine + 1) / 2
        areas.append(above / (mine * (len(labels) - mine)))
    return sum(areas) / len(areas)
