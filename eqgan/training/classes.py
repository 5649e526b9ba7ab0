"""What the evaluation of a conditional GAN knows of its classes: how often each comes, and how it looks."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from eqgan.data.imageset import ImageSet
from eqgan.metrics import FeatureExtractor, FeatureStatistics
from eqgan.networks import Classifier
from eqgan.networks.features import FeatureNetwork
from eqgan.training.scoring import guessed_classes, image_reference

_DIGITS = tuple("0123456789")

Guess = Callable[[Tensor, Tensor], Tensor]
"""The class of each image, from the images and their features."""


@dataclass(frozen=True)
class Classes:
    """The classes of the real images that samples are compared with.

    Args:
        shares: of each class among them, (classes,).
        references: features of the images of each.
        guess: a classifier, or None.
    """

    shares: Tensor
    references: tuple[FeatureStatistics, ...]
    guess: Guess | None

    def draw(self, count: int, draws: torch.Generator) -> Tensor:
        """Labels as often as the real ones."""
        return torch.multinomial(self.shares, count, replacement=True, generator=draws)


def classes_of(
    images: ImageSet,
    split: str,
    extractor: FeatureExtractor,
    classifier: Classifier | None = None,
) -> Classes:
    """The classes of a labelled set of real images.

    Args:
        images: with labels.
        split: the part of the data set they are.
        extractor: the feature network of the scores.
        classifier: guesses the class of samples; None: the shipped feature network where it knows these
            classes, else nothing does.

    Raises:
        ValueError: for images without labels, a class with fewer than 2, or another classifier's classes.
    """
    names = images.class_names
    if images.labels is None:
        raise ValueError(f"{images.name}: the {split} images have no labels, which class scores need")
    counts = images.labels.bincount(minlength=len(names))
    if counts.min() < 2:
        raise ValueError(
            f"{images.name}: class {names[int(counts.argmin())]!r} has fewer than 2 {split} images, too few "
            "for its statistics; --evaluation.reference names another split"
        )
    parts = [images.subset((images.labels == label).nonzero().squeeze(1)) for label in range(len(names))]
    references = [
        image_reference(part, f"{split}, class {name}", extractor).statistics
        for part, name in zip(parts, names)
    ]
    guess = _guess(images, extractor) if classifier is None else _guess_of(classifier, images)
    return Classes(counts / counts.sum(), tuple(references), guess)


def _guess(images: ImageSet, extractor: FeatureExtractor) -> Guess | None:
    """The class head of the shipped feature network, where the classes are its digits."""
    if images.class_names != _DIGITS or not isinstance(extractor.module, FeatureNetwork):
        return None
    return lambda _, features: guessed_classes(features, extractor, len(_DIGITS))


def _guess_of(network: Classifier, images: ImageSet) -> Guess:
    shape = tuple(images.images.shape[1:])
    if (tuple(network.image_shape), network.num_classes) != (shape, len(images.class_names)):
        raise ValueError(
            f"the classifier tells {network.num_classes} classes of {tuple(network.image_shape)} images "
            f"apart, {images.name} has {len(images.class_names)} of {shape}"
        )
    network.eval()

    @torch.no_grad()
    def guess(pictures: Tensor, _: Tensor) -> Tensor:
        return network.to(pictures.device)(pictures).argmax(1)

    return guess
