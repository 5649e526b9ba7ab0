"""The images of a run, as a Lightning data module."""

import numpy as np
import pytorch_lightning as pl
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.loader import TensorLoader
from eqgan.data.sources import open_source


class ImageData(pl.LightningDataModule):
    """A source of images, perhaps a share of it, and the loader that feeds it to a run.

    Attributes:
        name: of the set really used, with the share: "rotmnist-10pct". This and all below after `setup`.
        train: the training images, after the share was drawn.
        image_shape: (channels, height, width).
        class_names: one per class, empty without labels.
        num_classes: their number, 1 without labels.
        sha256: of the source as it was read, all splits; for Rotated MNIST the published constant.

    Args:
        source: `auto`, `rotmnist`, `mnist`, `digits`, a folder of images, or an .npz file.
        root: the data root, where MNIST is looked for; else EQGAN_DATA, else `data`.
        size: resize every image to `size` x `size`.
        batch_size: images per step and process.
        fraction: share of the training images used, in (0, 1]; drawn once without replacement from the
            seed, so that a smaller share is part of a larger one.
        seed: of the share and of the order of the images.

    Raises:
        ValueError: an argument out of range; `setup` raises what `open_source` does.
    """

    name: str
    train: ImageSet
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
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < fraction <= 1:
            raise ValueError(
                f"--fraction: expected a share above 0 and up to 1, got {fraction}. 0.1 means a tenth."
            )
        if batch_size < 1:
            raise ValueError(f"--batch-size: expected at least 1, got {batch_size}.")
        if not 0 <= seed < 2**32:
            raise ValueError(f"--seed: expected 0 to 2^32 - 1, got {seed}.")
        self.source, self.root, self.size = source, root, size
        self.batch_size, self.fraction, self.seed = batch_size, fraction, seed
        self._opened: Source | None = None
        self._references: dict[str, ImageSet] = {}

    def prepare_data(self) -> None:
        """Download and cache in one process, before the others look."""
        self._open()

    def setup(self, stage: str | None = None) -> None:
        """Read the source, once, and draw the share."""
        if hasattr(self, "train"):
            return
        source = self._open()
        train = self._draw(self.reference("train"))
        share = "" if self.fraction == 1 else f"-{100 * self.fraction:g}pct"
        self.name, self.sha256 = source.name + share, source.sha256
        self.image_shape = tuple(train.images.shape[1:])
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
        return "test" if "test" in self._open().splits else "train"

    def train_dataloader(self) -> TensorLoader:
        """Return the loader, on the device and with the share of images of this process."""
        self.setup()
        device, rank, world_size = torch.device("cpu"), 0, 1
        if self.trainer is not None:
            device = self.trainer.strategy.root_device
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        return TensorLoader(
            self.train.images,
            self.train.labels,
            self.batch_size,
            seed=self.seed,
            device=device,
            rank=rank,
            world_size=world_size,
        )

    def _open(self) -> Source:
        if self._opened is None:
            self._opened = open_source(self.source, self.root, self.size)
        return self._opened

    def _draw(self, train: ImageSet) -> ImageSet:
        """Return the share of the training images, in the order of the set.

        Raises:
            ValueError: it is less than one batch.
        """
        count = max(1, round(self.fraction * len(train)))
        if count < self.batch_size:
            share = f" (a fraction {self.fraction:g} of {len(train)})" if self.fraction < 1 else ""
            raise ValueError(
                f"{train.name}: expected at least one batch of {self.batch_size} training images, "
                f"got {count}{share}. Use --batch-size {count} or less, or more images."
            )
        if count == len(train):
            return train
        order = np.random.RandomState(self.seed).permutation(len(train))  # a prefix: shares are nested
        return train.subset(torch.from_numpy(np.sort(order[:count])))
