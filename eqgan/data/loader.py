"""Batches from a tensor that lies on the device: no worker processes, no Python per image."""

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor


class Loader(ABC):
    """Iterate over `(image, label)` batches, images float in [-1, 1], in an order of its own each epoch.

    The order depends on (seed, epoch) and nothing else: a resumed run sees the batches of the uninterrupted
    one, and no global random state is touched. Lightning calls `loader.sampler.set_epoch`, so `sampler` is
    the loader itself.

    Args:
        count: number of images.
        batch_size: images per batch and rank.
        seed: of the order, not negative.
        shuffle: draw a new order each epoch; otherwise as they come.
        drop_last: leave out the last, smaller batch.
        rank: of this process; every process must be given the same seed.
        world_size: number of processes; each sees an equal share of every epoch.
        passes: over all images in one epoch, each in an order of its own.

    Raises:
        ValueError: an argument out of range, or not one whole batch per rank.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        rank: int = 0,
        world_size: int = 1,
        passes: int = 1,
    ) -> None:
        if batch_size < 1 or seed < 0 or not 0 <= rank < world_size or passes < 1:
            raise ValueError(
                "expected batch_size >= 1, seed >= 0, 0 <= rank < world_size and passes >= 1, "
                f"got {batch_size}, {seed}, {rank}, {world_size} and {passes}."
            )
        total = count * passes
        self.share = total // world_size if drop_last else -(-total // world_size)
        if self.share < (batch_size if drop_last else 1):
            raise ValueError(
                f"expected at least one batch of {batch_size} images for each of {world_size} process(es), "
                f"got {count} images. Use --batch-size {max(1, count // world_size)} or less, or more images."
            )
        self.count, self.batch_size, self.seed, self.shuffle = count, batch_size, seed, shuffle
        self.drop_last, self.rank, self.world_size, self.epoch = drop_last, rank, world_size, 0
        self.passes = passes

    @abstractmethod
    def __iter__(
        self,
    ) -> Iterator[tuple[Float32[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]]:
        """Go through one epoch."""

    @property
    def sampler(self) -> "Loader":
        """The object whose `set_epoch` is called before each epoch."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the epoch to come."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.share // self.batch_size if self.drop_last else -(-self.share // self.batch_size)

    def order(self) -> Int64[Tensor, " share"]:
        """Return the indices that this rank goes through in this epoch, on the CPU."""
        first = self.epoch * self.passes
        order = torch.cat([self._pass(number) for number in range(first, first + self.passes)])
        missing = self.share * self.world_size - len(order)
        if missing > 0:  # without drop_last: the first ones again, so that the shares are equal
            order = torch.cat([order, order[:missing]])
        return order[self.rank :: self.world_size][: self.share]

    def _pass(self, number: int) -> Int64[Tensor, " n"]:
        """Return the order of one pass over all images, counted over all epochs."""
        if not self.shuffle:
            return torch.arange(self.count)
        state = np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)
        return self.permutation(torch.Generator().manual_seed(int(state[0]) >> 1))

    def permutation(self, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """Return all indices in random order."""
        return torch.randperm(self.count, generator=generator)


class TensorLoader(Loader):
    """Batches of a set held as bytes on the device.

    Args:
        images: (N, channels, height, width), 0 to 255.
        labels: (N,), or None: zeros are yielded.
        batch_size: images per batch and rank.
        seed, shuffle, drop_last, rank, world_size, passes: see `Loader`.
        device: where the set is kept and the batches are made; None: where the images are.

    Raises:
        ValueError: an argument out of range, or not one whole batch per rank.

    >>> loader = TensorLoader(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), None, batch_size=4)
    >>> [(tuple(image.shape), image.max().item(), label.tolist()) for image, label in loader]
    [((4, 1, 2, 2), -1.0, [0, 0, 0, 0]), ((4, 1, 2, 2), -1.0, [0, 0, 0, 0])]
    """

    def __init__(
        self,
        images: UInt8[Tensor, "n channels height width"],
        labels: Int64[Tensor, " n"] | None,
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        drop_last: bool = True,
        device: torch.device | str | None = None,
        rank: int = 0,
        world_size: int = 1,
        passes: int = 1,
    ) -> None:
        super().__init__(len(images), batch_size, seed, shuffle, drop_last, rank, world_size, passes)
        self.images = images.to(device)
        self.labels = (torch.zeros(len(images), dtype=torch.int64) if labels is None else labels).to(
            self.images.device
        )

    def __iter__(
        self,
    ) -> Iterator[tuple[Float32[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]]:
        order = self.order().to(
            self.images.device
        )  # at once: a copy for every batch would wait for the device
        for batch in order.split(self.batch_size)[: len(self)]:
            # on the CPU several times as fast as indexing, for the same images
            yield to_unit(self.images.index_select(0, batch)), self.labels[batch]


def to_unit(images: UInt8[Tensor, "*shape"]) -> Float32[Tensor, "*shape"]:
    """Return x / 127.5 - 1: 0 (black) becomes -1 and 255 becomes 1, exactly.

    >>> to_unit(torch.tensor([0, 255], dtype=torch.uint8))
    tensor([-1.,  1.])
    """
    return images.to(torch.float32).div_(127.5).sub_(1.0)
