"""What every source of images turns into: one tensor of bytes with its labels, and the splits of a source."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image
from torch import Tensor

from eqgan.data.loader import Loader, TensorLoader


class SetDigest:
    """The hash of a set of images that come block by block: of their shape, the images, the labels.

    Args:
        shape: of all images together.
    """

    def __init__(self, shape: Iterable[int]) -> None:
        self._digest = hashlib.sha256(repr(tuple(shape)).encode())

    def update(self, images: Tensor | np.ndarray) -> None:
        """Take in the next images."""
        self._digest.update(np.ascontiguousarray(images))

    def finish(self, labels: Tensor | np.ndarray | None) -> str:
        """Return the hash, in hexadecimal, after all labels."""
        self._digest.update(b"-" if labels is None else np.ascontiguousarray(labels))
        return self._digest.hexdigest()


def sha256_of_splits(hashes: Mapping[str, str]) -> str:
    """Return the hash of a source from those of its splits."""
    return hashlib.sha256(" ".join(f"{split} {one}" for split, one in hashes.items()).encode()).hexdigest()


@dataclass(frozen=True)
class ImageSet:
    """One split of one source, held in memory.

    Attributes:
        name: of the source that was really used.
        images: grey (1 channel) or RGB (3 channels), 0 (black) to 255.
        labels: 0 to len(class_names) - 1, or None.
        angles: degrees, counter-clockwise, by which each image was rotated, or None.
        class_names: one per class; empty without labels.
        sha256: of the shape, images and labels: two sets with one hash hold the same data.
    """

    name: str
    images: UInt8[Tensor, "n channels height width"]
    labels: Int64[Tensor, " n"] | None
    angles: Float[Tensor, " n"] | None
    class_names: tuple[str, ...]
    sha256: str

    @classmethod
    def of(
        cls,
        name: str,
        images: Tensor,
        labels: Tensor | None = None,
        angles: Tensor | None = None,
        class_names: tuple[str, ...] = (),
    ) -> "ImageSet":
        """Build a set and its hash; arguments as the attributes."""
        digest = SetDigest(images.shape)
        digest.update(images)
        return cls(name, images, labels, angles, class_names, digest.finish(labels))

    def __len__(self) -> int:
        return len(self.images)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(channels, height, width)."""
        return tuple(self.images.shape[1:])

    def head(self, count: int) -> UInt8[Tensor, "m channels height width"]:
        """Return the first images, at most `count`."""
        return self.images[:count]

    def blocks(self, count: int = 1024) -> Iterator[UInt8[Tensor, "m channels height width"]]:
        """Yield all images in order, at most `count` at a time."""
        for start in range(0, len(self), count):
            yield self.images[start : start + count]

    def loader(self, batch_size: int, device: torch.device | str = "cpu", **options: Any) -> Loader:
        """Return what iterates over `(image, label)` batches on a device; options as of `TensorLoader`."""
        return TensorLoader(self.images, self.labels, batch_size, device=device, **options)

    def subset(self, indices: Int64[Tensor, " m"]) -> "ImageSet":
        """Return the images at `indices`, in that order, with their labels and angles."""
        labels = None if self.labels is None else self.labels[indices]
        angles = None if self.angles is None else self.angles[indices]
        return ImageSet.of(self.name, self.images[indices], labels, angles, self.class_names)

    def resized(self, size: int) -> "ImageSet":
        """Return the set with every image `size` x `size`; itself where that is so already."""
        if self.images.shape[-2:] == (size, size):
            return self
        images = torch.stack([_resize(image, size) for image in self.images])
        return ImageSet.of(self.name, images, self.labels, self.angles, self.class_names)


@dataclass(frozen=True)
class Source:
    """A source of images with the splits it has.

    Attributes:
        name: of the source that was really used, safe in file names.
        sets: split ("train", perhaps "test", "validation", "extra") to images, as they were read.
        sha256: of all splits, as they were read.
        size: pixels a side that `split` resizes to, or None to leave them.
        validation_rows: where the validation split lies in train; None where they have no image in common.
        further_tests: name to what makes another set of test images, asked for by `test_sets` only.
    """

    name: str
    sets: Mapping[str, ImageSet]
    sha256: str
    size: int | None = None
    validation_rows: range | None = None
    further_tests: Mapping[str, Callable[[], ImageSet]] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, sets: Mapping[str, ImageSet], size: int | None = None) -> "Source":
        """Build a source whose hash is that of the hashes of its splits."""
        return cls(name, sets, sha256_of_splits({split: one.sha256 for split, one in sets.items()}), size)

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits."""
        return tuple(self.sets)

    def split(self, name: str) -> ImageSet:
        """Return one split, resized to `size` if that is given.

        Raises:
            ValueError: the source has no such split, or its images are not square and no size is given.
        """
        if name not in self.sets:
            raise ValueError(f"{self.name} has no {name} split, expected one of: {', '.join(self.splits)}.")
        return self._square(self.sets[name])

    def test_sets(self) -> dict[str, ImageSet]:
        """Return every set of test images by name, that of the source itself first.

        Raises:
            ValueError: as `split`.
        """
        if "test" not in self.sets:
            return {}
        further = {name: self._square(make()) for name, make in self.further_tests.items()}
        return {self.name: self.split("test"), **further}

    def _square(self, images: ImageSet) -> ImageSet:
        if self.size is not None:
            return images.resized(self.size)
        _, height, width = images.image_shape
        if height != width:
            raise ValueError(
                f"{self.name}: expected square images, got {width} x {height} pixels (width x height). "
                "Add --size N to resize them to N x N, or crop them first."
            )
        return images


def label_indices(
    labels: Mapping[str, np.ndarray | None],
) -> tuple[dict[str, Tensor | None], tuple[str, ...]]:
    """Number the classes of all splits together, in sorted order.

    Args:
        labels: split to its labels, integers or strings, or None.

    Returns:
        Split to class indices (int64) or None, and the names of the classes.

    >>> label_indices({"train": np.array([3, 7, 3]), "test": np.array([7])})
    ({'train': tensor([0, 1, 0]), 'test': tensor([1])}, ('3', '7'))
    """
    present = [values for values in labels.values() if values is not None]
    classes = np.unique(np.concatenate(present)) if present else np.empty(0)
    indices = {
        split: None if values is None else torch.from_numpy(np.searchsorted(classes, values).astype(np.int64))
        for split, values in labels.items()
    }
    return indices, tuple(str(name) for name in classes)


def resize_pixels(pixels: np.ndarray, size: int) -> np.ndarray:
    """Resize one uint8 image (height, width) or (height, width, 3) to `size` x `size`.

    Lanczos interpolation with anti-aliasing, as in Pillow; the aspect ratio is not kept.
    """
    return np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.LANCZOS))


def _resize(image: Tensor, size: int) -> Tensor:
    """Resize one uint8 image (channels, height, width)."""
    if len(image) == 1:
        return torch.from_numpy(resize_pixels(image[0].numpy(), size).copy())[None]
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    return torch.from_numpy(resize_pixels(pixels, size).copy()).permute(2, 0, 1).contiguous()
