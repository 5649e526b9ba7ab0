"""The images of a run, as a Lightning data module."""

import numpy as np
import pytorch_lightning as pl
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.loader import Loader
from eqgan.data.sources import open_source


class ImageData(pl.LightningDataModule):
    """A source of images, perhaps a share of it, and the loader that feeds it to a run.

    Attributes:
        name: of the set really used, with the share: "rotmnist-10pct". This and all below after `setup`.
        train: the training images, after the validation images were held out and the share was drawn.
        validation: images to choose by, none of them in train; empty if there are none.
        image_shape: (channels, height, width).
        class_names: one per class, empty without labels.
        num_classes: their number, 1 without labels.
        sha256: of the source as it was read, all splits; for Rotated MNIST the published constant.

    Args:
        source: `auto`, the name of a set (see `eqgan.data.sources.open_source`), a folder of images, or an
            .npz file.
        root: the data root, where named sets are looked for; else EQGAN_DATA, else `data`.
        size: resize every image to `size` x `size`.
        batch_size: images per step; of several processes each takes an equal share of them.
        fraction: share of the training images used, in (0, 1]; drawn once without replacement from the
            seed, so that a smaller share is part of a larger one.
        validation_fraction: share of the training images held out as `validation`, in [0, 1), the same of
            every class, drawn from the seed before, and whatever, `fraction`. Where the source has a
            validation split within its training images (the last 2,000 of Rotated MNIST), that one is held
            out instead, for any share above 0; where it has one beside them, `validation` is always that.
        drop_last: leave out the last, smaller batch of an epoch of training.
        passes: over the training images in one epoch; more than one where there are so few of them that
            the scores and pictures of every epoch would cost more than its steps.
        seed: of both shares and of the order of the images.

    Raises:
        ValueError: an argument out of range; `setup` raises what `open_source` does.
    """

    name: str
    train: ImageSet
    validation: ImageSet
    image_shape: tuple[int, int, int]
    class_names: tuple[str, ...]
    num_classes: int
    sha256: str

    def __init__(
        self,
        source: str = "auto",
        root: str | None = None,
        size: int | None = None,
        batch_size: int = 64,
        fraction: float = 1.0,
        validation_fraction: float = 0.0,
        drop_last: bool = True,
        passes: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 <= validation_fraction < 1:
            raise ValueError(
                "--validation-fraction: expected a share from 0 up to below 1, "
                f"got {validation_fraction}. 0.1 means a tenth."
            )
        if not 0 < fraction <= 1:
            raise ValueError(
                f"--fraction: expected a share above 0 and up to 1, got {fraction}. 0.1 means a tenth."
            )
        if batch_size < 1:
            raise ValueError(f"--batch-size: expected at least 1, got {batch_size}.")
        if passes < 1:
            raise ValueError(f"--dataset.passes: expected at least 1, got {passes}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"--seed: expected 0 to 2^32 - 1, got {seed}.")
        self.source, self.root, self.size = source, root, size
        self.batch_size, self.fraction, self.seed = batch_size, fraction, seed
        self.validation_fraction, self.drop_last, self.passes = validation_fraction, drop_last, passes
        self._opened: Source | None = None
        self._references: dict[str, ImageSet] = {}

    @property
    def has_classes(self) -> bool:
        """Whether the images have labels, and not all the same."""
        return self.train.labels is not None and self.num_classes > 1

    def prepare_data(self) -> None:
        """Download and cache in one process, before the others look."""
        self._open()

    def setup(self, stage: str | None = None) -> None:
        """Read the source, once, hold out the validation images, and draw the share."""
        if hasattr(self, "train"):
            return
        source = self._open()
        train, self.validation = self._draw(self.reference("train"))
        share = "" if self.fraction == 1 else f"-{100 * self.fraction:g}pct"
        self.name, self.sha256 = source.name + share, source.sha256
        self.image_shape = train.image_shape
        self.class_names, self.num_classes = train.class_names, len(train.class_names) or 1
        self.train = train

    def reference(self, split: str = "auto") -> ImageSet:
        """Return a whole split of the source, whatever the share, for statistics to compare with.

        Args:
            split: train, test, validation or extra; auto: test if the source has one, else train.

        Raises:
            ValueError: the source has no such split.
        """
        source, split = self._open(), self.resolve_split(split)
        if split not in self._references:
            self._references[split] = source.split(split)
        return self._references[split]

    def resolve_split(self, split: str = "auto") -> str:
        """Return the split that `reference` would take."""
        if split != "auto":
            return split
        return "test" if self.has_test_images else "train"

    @property
    def has_test_images(self) -> bool:
        """Whether the source has a test split."""
        return "test" in self._open().splits

    def test_sets(self) -> dict[str, ImageSet]:
        """Return every set of test images by its name, the main one first; none where there is no test split.

        Rotated MNIST has two: "rotmnist", its 50,000, and "mnist", upright MNIST test images none of which is
        (rotated) a training or validation image of Rotated MNIST.
        """
        return self._open().test_sets()

    def train_dataloader(self) -> Loader:
        """Return the loader, on the device and with the share of images of this process."""
        self.setup()
        return self.loader(self.train, shuffle=True, drop_last=self.drop_last, passes=self.passes)

    def val_dataloader(self) -> Loader | list[Loader]:
        """Return the loader of the validation images, in their order; an empty list if there are none."""
        self.setup()
        return self.loader(self.validation) if len(self.validation) else []

    def loader(
        self,
        images: ImageSet,
        shuffle: bool = False,
        drop_last: bool = False,
        batch_size: int | None = None,
        passes: int = 1,
    ) -> Loader:
        """Return a loader of any set on the trainer's device; by default every image, in order.

        Args:
            images: such as one of `test_sets`.
            shuffle: draw a new order each epoch.
            drop_last: leave out the last, smaller batch.
            batch_size: that of training by default.
            passes: over the images.
        """
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return images.loader(
            max(1, (batch_size or self.batch_size) // world_size),
            device,
            seed=self.seed,
            shuffle=shuffle,
            drop_last=drop_last,
            rank=rank,
            world_size=world_size,
            passes=passes,
        )

    def _open(self) -> Source:
        if self._opened is None:
            self._opened = open_source(self.source, self.root, self.size)
        return self._opened

    def _draw(self, train: ImageSet) -> tuple[ImageSet, ImageSet]:
        """Return the share of the training images, in the order of the set, and the validation images.

        Raises:
            ValueError: it is less than one batch, or no image.
        """
        order = np.random.RandomState(self.seed).permutation(len(train))
        held = self._held_out(train, order)
        order = order[~np.isin(order, held)]
        count = max(1, round(self.fraction * len(order)))
        least = self.batch_size if self.drop_last else 1
        if min(count, len(order)) < least:
            share = f" (a fraction {self.fraction:g} of {len(order)})" if self.fraction < 1 else ""
            raise ValueError(
                f"{train.name}: expected at least one batch of {least} training images, "
                f"got {min(count, len(order))}{share}. Use --batch-size {count} or less, or more images."
            )
        source = self._open()
        apart = "validation" in source.splits and source.validation_rows is None
        validation = source.split("validation") if apart else train.subset(torch.from_numpy(held))
        if count == len(train):
            return train, validation
        return train.subset(torch.from_numpy(np.sort(order[:count]))), validation  # a prefix: nested shares

    def _held_out(self, train: ImageSet, order: np.ndarray) -> np.ndarray:
        """Return the rows of train that are the validation images: of every class, the last in this order."""
        source = self._open()
        if not self.validation_fraction or ("validation" in source.splits and source.validation_rows is None):
            return np.empty(0, np.int64)
        if source.validation_rows is not None:
            return np.array(source.validation_rows)
        labels = np.zeros(len(train), np.int64) if train.labels is None else train.labels.numpy()
        classes = [order[labels[order] == label] for label in np.unique(labels)]
        rows = [rows[len(rows) - round(self.validation_fraction * len(rows)) :] for rows in classes]
        return np.sort(np.concatenate(rows))
