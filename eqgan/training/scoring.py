"""What samples are scored against, and how they spread over the classes."""

from torch import Tensor

from eqgan.data.imageset import ImageSet
from eqgan.files import cache_folder
from eqgan.metrics import FeatureExtractor, Reference, reference_statistics
from eqgan.networks.features import FeatureNetwork

NEIGHBOURS = 5_000  # the cost of neighbours is quadratic; the Fréchet distance uses all images


def image_reference(images: ImageSet, split: str, extractor: FeatureExtractor) -> Reference:
    """Statistics of real images, from the cache if they were computed before.

    Args:
        images: all of a split.
        split: its name.
        extractor: the feature network.
    """
    return reference_statistics(
        images.images,
        extractor,
        data_name=images.name,
        data_hash=images.sha256,
        split=split,
        count=len(images),
        cache_dir=cache_folder() / "reference",
        neighbours=NEIGHBOURS,
    )


def class_shares(features: Tensor, extractor: FeatureExtractor, num_classes: int) -> list[float] | None:
    """Share of each class among samples, as the feature network sees it.

    Args:
        features: (samples, features).
        extractor: that made them.
        num_classes: of the real images.

    Returns:
        One share a class, or None where the feature network does not tell these classes apart.
    """
    classes = guessed_classes(features, extractor, num_classes)
    return None if classes is None else (classes.bincount(minlength=num_classes) / len(features)).tolist()


def guessed_classes(features: Tensor, extractor: FeatureExtractor, num_classes: int) -> Tensor | None:
    """The class of each sample, as the feature network sees it; None where it does not tell these apart."""
    network = extractor.module
    if not isinstance(network, FeatureNetwork) or num_classes != network.classifier.out_features:
        return None
    device = next(network.parameters()).device
    return network.heads(features.to(device))[0].argmax(1)
