"""Sprites: many small images as the tiles of one lossless picture, with their labels in an .npz file."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.root import data_root
from eqgan.files import read_arrays

_REMEDY = "Delete it and fetch it again, or copy it from an intact source"


@dataclass(frozen=True)
class Sprite:
    """A split as it was published: the file, how many images it holds, and the hash of the `ImageSet`."""

    file: str
    count: int
    sha256: str


@dataclass(frozen=True)
class SpriteSource:
    """A source made of sprites.

    Attributes:
        name: of the source.
        folder: below the data root.
        side: of a tile, in pixels.
        labels: the .npz file with `y_<split>`, integers, and `class_names`.
        splits: split to sprite.
    """

    name: str
    folder: str
    side: int
    labels: str
    splits: Mapping[str, Sprite]

    def is_there(self, root: str | None = None) -> bool:
        """Return whether every file lies under the data root, whatever is in it."""
        return not self._missing(root)

    def read(self, root: str | None = None, size: int | None = None) -> Source:
        """Read and verify every split.

        Args:
            root: the data root; see `eqgan.data.root.data_root`.
            size: pixels a side of `Source.split`.

        Raises:
            FileNotFoundError: a file is missing.
            ValueError: a file is damaged, or its content is another.
        """
        if missing := self._missing(root):
            raise FileNotFoundError(
                f"--data {self.name}: expected {', '.join(map(str, missing))}, got no such file(s). Put them "
                "there, or point --data-root or the environment variable EQGAN_DATA at the folder above."
            )
        folder = data_root(root) / self.folder
        labels = read_arrays(folder / self.labels)
        sets = {}
        for split, sprite in self.splits.items():
            path = folder / sprite.file
            images = torch.from_numpy(read_sprite(path, sprite.count, self.side))
            classes = _labels(labels, f"y_{split}", sprite.count, folder / self.labels)
            names = tuple(str(name) for name in labels.get("class_names", ()))
            sets[split] = ImageSet.of(self.name, images, torch.from_numpy(classes), None, names)
            check_content(sets[split], sprite.sha256, f"{path} with {folder / self.labels}")
        return Source.of(self.name, sets, size)

    def _missing(self, root: str | None) -> list[Path]:
        files = [self.labels, *(sprite.file for sprite in self.splits.values())]
        paths = [data_root(root) / self.folder / file for file in files]
        return [path for path in paths if not path.is_file()]


def read_sprite(path: Path, count: int, side: int) -> UInt8[np.ndarray, "count 3 side side"]:
    """Cut a picture into its tiles, row by row.

    Args:
        path: of the picture.
        count: how many tiles hold an image; there may be empty ones after them.
        side: of a tile, in pixels.

    Raises:
        ValueError: a broken picture, or one that is not made of as many tiles.
    """
    try:
        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: expected a picture of {count:,} tiles, got a file that cannot be read ({error}). "
            f"{_REMEDY}."
        ) from error
    height, width = pixels.shape[:2]
    rows, columns = height // side, width // side
    if height % side or width % side or rows * columns < count:
        raise ValueError(
            f"{path}: expected at least {count:,} tiles of {side} x {side} pixels, got a picture of "
            f"{width} x {height} (width x height). {_REMEDY}."
        )
    tiles = pixels.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3)
    return np.ascontiguousarray(tiles.reshape(rows * columns, 3, side, side)[:count])


def check_content(images: ImageSet, sha256: str, where: str) -> None:
    """Compare the hash of a set with the one it should have.

    Raises:
        ValueError: it is another; names both.
    """
    if images.sha256 != sha256:
        raise ValueError(
            f"{where}: expected images and labels with SHA-256 {sha256}, got {images.sha256}: damaged, or "
            f"another set. {_REMEDY}; for images of your own use --data FOLDER or --data FILE.npz."
        )


def _labels(arrays: Mapping[str, np.ndarray], key: str, count: int, path: Path) -> np.ndarray:
    labels = arrays.get(key)
    if labels is None or labels.shape != (count,) or not np.issubdtype(labels.dtype, np.integer):
        got = "no such array" if labels is None else f"{labels.dtype} of shape {labels.shape}"
        raise ValueError(f"{path}: expected {count:,} integer labels in {key!r}, got {got}. {_REMEDY}.")
    return labels.astype(np.int64)
