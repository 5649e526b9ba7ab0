"""Sets of images that stay on the disk, and the loader that reads them in shuffled order."""

import hashlib
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from torch import Tensor

from eqgan.data.imageset import ImageSet
from eqgan.data.loader import Loader, to_unit

_RUN = 1 << 18  # bytes of images that lie side by side and are read together in a shuffled epoch
_WINDOW = 1 << 26  # bytes of images that are shuffled among one another
_AHEAD = 4  # batches that are prepared while one is used


class StoredSet(ImageSet):
    """A split, or some rows of it, that stays on the disk.

    `images` of a whole split is mapped, not read; of some rows it is read whole, which `loader` never does.
    """

    def __init__(
        self,
        name: str,
        pixels: UInt8[Tensor, "n channels height width"],
        labels: Int64[Tensor, " n"] | None,
        class_names: tuple[str, ...],
        sha256: str,
        rows: Int64[Tensor, " m"] | None = None,
    ) -> None:
        values = {"name": name, "class_names": class_names, "sha256": sha256, "angles": None}
        values |= {"_pixels": pixels, "_labels": labels, "_rows": rows}
        for key, value in values.items():
            object.__setattr__(self, key, value)

    @property
    def images(self) -> UInt8[Tensor, "m channels height width"]:
        return self._pixels if self._rows is None else self._pixels[self._rows]

    @property
    def labels(self) -> Int64[Tensor, " m"] | None:
        return self._labels if self._rows is None or self._labels is None else self._labels[self._rows]

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self._pixels.shape[1:])

    def __len__(self) -> int:
        return len(self._pixels if self._rows is None else self._rows)

    def head(self, count: int) -> UInt8[Tensor, "m channels height width"]:
        return self._pixels[:count] if self._rows is None else self._pixels[self._rows[:count]]

    def blocks(self, count: int = 1024) -> Iterator[UInt8[Tensor, "m channels height width"]]:
        rows = torch.arange(len(self._pixels)) if self._rows is None else self._rows
        return (self._pixels[part] for part in rows.split(count))

    def subset(self, indices: Int64[Tensor, " m"]) -> "StoredSet":
        """Return the images at `indices`, in that order; only the indices are kept in memory."""
        rows = indices if self._rows is None else self._rows[indices]
        digest = hashlib.sha256(f"{self.sha256} rows ".encode())
        digest.update(np.ascontiguousarray(indices.numpy()))
        return StoredSet(self.name, self._pixels, self._labels, self.class_names, digest.hexdigest(), rows)

    def resized(self, size: int) -> "StoredSet":
        """Return the set itself.

        Raises:
            ValueError: its images have another size.
        """
        if self.image_shape[1:] == (size, size):
            return self
        raise ValueError(
            f"--size {size}: a store is not resized when it is read, and {self.name} has images of "
            f"{self.image_shape[2]} x {self.image_shape[1]} pixels. Convert again with --size {size}."
        )

    def loader(self, batch_size: int, device: torch.device | str = "cpu", **options: Any) -> "StoreLoader":
        return StoreLoader(self._pixels, self._labels, batch_size, self._rows, device, **options)


class StoreLoader(Loader):
    """Batches read from a mapped file by a thread, a few of them ahead.

    Each epoch is a permutation of all images that depends on (seed, epoch) alone. Runs of neighbouring images
    (256 KiB) are shuffled as wholes, then the images of each window of 64 MiB among one another: the disk
    reads long stretches, and no more than two windows are wanted in the page cache. In a set of one window
    every order is as likely as every other.

    Args:
        pixels: the mapped images.
        labels: of all of them, or None: zeros are yielded.
        batch_size: images per batch and rank.
        rows: which images there are, or None for all.
        device: where the batches are made.
        options: seed, shuffle, drop_last, rank, world_size, passes: see `Loader`.
    """

    def __init__(
        self,
        pixels: UInt8[Tensor, "n channels height width"],
        labels: Int64[Tensor, " n"] | None,
        batch_size: int,
        rows: Int64[Tensor, " m"] | None = None,
        device: torch.device | str = "cpu",
        **options: Any,
    ) -> None:
        super().__init__(len(pixels) if rows is None else len(rows), batch_size, **options)
        self.pixels, self.labels, self.rows, self.device = pixels, labels, rows, torch.device(device)
        each = max(1, prod(pixels.shape[1:]))
        self.run, self.window = max(1, _RUN // each), max(1, _WINDOW // _RUN)

    def __iter__(
        self,
    ) -> Iterator[tuple[Float32[Tensor, "batch channels height width"], Int64[Tensor, " batch"]]]:
        indices = iter(self.order().split(self.batch_size)[: len(self)])
        with ThreadPoolExecutor(1, "eqgan-store") as reader:
            waiting: deque[Future[tuple[Tensor, Tensor]]] = deque()
            waiting.extend(reader.submit(self._read, batch) for batch in islice(indices, _AHEAD))
            while waiting:
                images, labels = waiting.popleft().result()
                waiting.extend(reader.submit(self._read, batch) for batch in islice(indices, 1))
                yield to_unit(images.to(self.device)), labels.to(self.device)

    def permutation(self, generator: torch.Generator) -> Int64[Tensor, " n"]:
        """Return all indices: runs in random order, images in random order within each window of runs."""
        runs = torch.arange(self.count).split(self.run)
        order = torch.randperm(len(runs), generator=generator)
        windows = [torch.cat([runs[run] for run in window]) for window in order.split(self.window)]
        return torch.cat([w[torch.randperm(len(w), generator=generator)] for w in windows])

    def _read(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        rows = indices if self.rows is None else self.rows[indices]
        labels = torch.zeros(len(rows), dtype=torch.int64) if self.labels is None else self.labels[rows]
        return self.pixels.index_select(0, rows), labels
