"""What samples are scored against, and how they spread over the classes."""

from typing import Any

import torch
from torch import Tensor

from eqgan.data.imageset import ImageSet
from eqgan.data.loader import to_unit
from eqgan.data.module import ImageData
from eqgan.files import cache_folder
from eqgan.groups import P4
from eqgan.metrics import FeatureExtractor, Reference, memorisation, orbit_distance, reference_statistics
from eqgan.networks.features import FeatureNetwork
from eqgan.training.module import GAN
from eqgan.training.sampling import draw_samples

LARGEST = 2**28  # values of training images that are compared with: 1 GiB
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


def copies_and_orientation(
    gan: GAN, data: ImageData, split: str, extractor: FeatureExtractor, count: int = 2000, seed: int = 0
) -> dict[str, Any]:
    """Whether samples are copies of training images, and whether they point in all directions.

    Args:
        gan: on its device.
        data: that it was trained on, set up.
        split: of fresh real images, other than train; "train" leaves copies out, for want of a yardstick,
            and so do training images of more than 2^28 values.
        extractor: a feature network that sees orientation.
        count: samples, and at most as many real images.
        seed: of the samples.

    Returns:
        ``orientation``: ``orbit_distance`` under p4 of samples and of real images, None for images that are
        not square; ``memorisation``: as ``Memorisation`` tells it, or None.
    """
    device = gan.device
    samples = torch.cat([some.images for some in draw_samples(gan, count, seed)]).to(device)
    fresh = to_unit(data.reference(split).head(count)).to(device)
    extractor.module.to(device)
    orientation = None
    if samples.shape[2] == samples.shape[3]:
        orientation = {
            "samples": orbit_distance(samples, extractor, P4),
            "real": orbit_distance(fresh, extractor, P4),
        }
    copies = None
    if split != "train" and len(data.train) * samples[0].numel() <= LARGEST:
        training = to_unit(data.train.head(len(data.train))).to(device)
        copies = memorisation(samples, training, fresh).as_dict()
    return {"orientation": orientation, "memorisation": copies}
