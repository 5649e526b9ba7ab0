"""Everything that can become a store, as streams of blocks: at no time is a set in memory as a whole."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np

from eqgan.data.folder import check_size, file_classes, image_files, read_image, split_folders, stack
from eqgan.data.imageset import Source, label_indices, resize_pixels
from eqgan.data.lensing.priors import TASKS
from eqgan.data.lensing.simulator import SIDE, simulate
from eqgan.data.npz import is_image_like, to_images
from eqgan.data.store import Stream

_BLOCK = 1 << 24  # bytes of images at a time

Streams = tuple[dict[str, Stream], tuple[str, ...]]
"""Split to images, and the names of the classes."""


def from_arrays(files: Mapping[str, tuple[Path, Path | None]], size: int | None = None) -> Streams:
    """Stream the images of .npy files, which are mapped, one for each split.

    Args:
        files: split to images, of a shape and range named in `eqgan.data.npz.read_npz`, and to an .npy file
            of whole numbers, one label per image; either all splits have labels or none has.
        size: resize every image to `size` x `size`.

    Raises:
        ValueError: a broken file, no images, another range, labels of another length or for some splits only,
            arrays of different types, or images that are not square without a size.
    """
    arrays = {split: _images(path) for split, (path, _) in files.items()}
    if len({array.dtype for array in arrays.values()}) > 1:
        types = ", ".join(f"{files[split][0]} holds {array.dtype}" for split, array in arrays.items())
        raise ValueError(f"expected arrays of one type, whose values mean the same, got others: {types}.")
    labelled = {split: path for split, (_, path) in files.items() if path is not None}
    if labelled and len(labelled) < len(files):
        raise ValueError(
            f"expected labels of every split or of none, got those of {', '.join(labelled)} alone."
        )
    numbers, names = label_indices({split: _labels(path, arrays[split]) for split, path in labelled.items()})
    bounds = (0.0, 255.0)
    if next(iter(arrays.values())).dtype != np.uint8:
        found = [_bounds(array, _rows(array), str(files[split][0])) for split, array in arrays.items()]
        bounds = min(low for low, _ in found), max(high for _, high in found)

    def blocks(split: str) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        array, classes = arrays[split], numbers.get(split)
        for start in range(0, len(array), _rows(array)):
            part = slice(start, start + _rows(array))
            images = _resized(to_images(array[part], str(files[split][0]), bounds), size)
            yield images, None if classes is None else classes[part].numpy()

    streams = {}
    for split, array in arrays.items():
        where = str(files[split][0])
        shape = _shape(to_images(array[:1], where, bounds).shape[1:], size, where)
        streams[split] = Stream(len(array), shape, blocks(split), split in labelled)
    return streams, names


def _images(path: Path) -> np.ndarray:
    array = _mapped(path)
    if not is_image_like(array):
        raise ValueError(
            f"{path}: expected images (N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W) of numbers, got "
            f"{array.dtype} of shape {array.shape}."
        )
    return array


def _labels(path: Path, array: np.ndarray) -> np.ndarray:
    values = _mapped(path)
    if values.shape != array.shape[:1] or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(
            f"{path}: expected {len(array):,} whole-number labels, got {values.dtype} of shape "
            f"{values.shape}."
        )
    return np.asarray(values)


def _rows(array: np.ndarray) -> int:
    """How many images make a block."""
    return max(1, _BLOCK // (prod(array.shape[1:]) * array.itemsize))


def from_folder(folder: Path, size: int | None = None) -> Streams:
    """Stream a folder of images as `eqgan.data.folder.read_folder` reads it; every file is decoded twice.

    Raises:
        ValueError: what `read_folder` raises, and images that are not square without a size.
    """
    folders = split_folders(folder)
    files = {split: image_files(part) for split, part in folders.items()}
    labels, names = label_indices(
        {split: file_classes(part, files[split]) for split, part in folders.items()}
    )
    side, grey = _survey([path for paths in files.values() for path in paths], size)
    shape = _shape((1 if grey else 3, *side), size, str(folder))

    def blocks(split: str) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        rows, classes = max(1, _BLOCK // prod(shape)), labels[split]
        for start in range(0, len(files[split]), rows):
            part = slice(start, start + rows)
            images = [read_image(path, size) for path in files[split][part]]
            yield stack(images, grey).numpy(), None if classes is None else classes[part].numpy()

    return {
        split: Stream(len(paths), shape, blocks(split), labels[split] is not None)
        for split, paths in files.items()
    }, names


def from_simulator(name: str, train: int, test: int, seed: int) -> Streams:
    """Stream simulated lenses; those of the test split have the numbers after those of the training split.

    Args:
        name: "lens" or "lens3".
        train, test: how many.
        seed: of the lenses.
    """
    task, shape = TASKS[name], (1, SIDE, SIDE)

    def blocks(count: int, start: int) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        for images, labels in simulate(task, count, seed, start):
            yield images.numpy(), labels.numpy()

    streams = {"train": Stream(train, shape, blocks(train, 0), True)}
    if test:
        streams["test"] = Stream(test, shape, blocks(test, train), True)
    return streams, task.classes


def from_source(source: Source) -> Streams:
    """Stream a source that is open already, with the sizes it has been asked for."""
    sets = {split: source.split(split) for split in source.splits}
    streams = {}
    for split, images in sets.items():
        labels = None if images.labels is None else images.labels.numpy()
        block = (images.images.numpy(), labels)
        streams[split] = Stream(len(images), images.image_shape, [block], labels is not None)
    return streams, next(iter(sets.values())).class_names


def with_progress(streams: Streams, tell: Callable[[str, int, int], None]) -> Streams:
    """Return the streams, calling `tell(split, images so far, count)` after each block."""

    def told(split: str, stream: Stream) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
        done = 0
        for images, labels in stream.blocks:
            yield images, labels
            done += len(images)
            tell(split, done, stream.count)

    return {
        split: replace(stream, blocks=told(split, stream)) for split, stream in streams[0].items()
    }, streams[1]


def _mapped(path: Path) -> np.ndarray:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(
            f"{path}: expected an .npy file of numbers, got one that cannot be read ({error}). "
            "Write it again with numpy.save."
        ) from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: expected an .npy file, got an archive. Use the .npz as --data directly.")
    return array


def _bounds(array: np.ndarray, rows: int, where: str) -> tuple[float, float]:
    """Return the least and the largest value, looking at a block at a time.

    Raises:
        ValueError: NaN or infinite values.
    """
    parts = [array[start : start + rows] for start in range(0, len(array), rows)]
    low, high = np.min([part.min() for part in parts]).item(), np.max([part.max() for part in parts]).item()
    if not (np.isfinite(low) and np.isfinite(high)):  # NaN and infinities come through NumPy's minimum
        raise ValueError(f"{where}: expected finite values, got NaN or infinite ones. Remove these images.")
    return low, high


def _shape(shape: tuple[int, ...], size: int | None, where: str) -> tuple[int, int, int]:
    """Return (channels, height, width) in the store."""
    channels, height, width = shape
    if size is not None:
        return channels, size, size
    if height != width:
        raise ValueError(
            f"{where}: expected square images, got {width} x {height} pixels (width x height). "
            "Add --size N to resize them to N x N, or crop them first."
        )
    return channels, height, width


def _resized(images: np.ndarray, size: int | None) -> np.ndarray:
    """Resize uint8 (n, channels, height, width)."""
    if size is None or images.shape[2:] == (size, size):
        return images
    return np.stack([[resize_pixels(channel, size) for channel in image] for image in images])


def _survey(paths: list[Path], size: int | None) -> tuple[tuple[int, int], bool]:
    """Return the common height and width of images, and whether all are grey, keeping one at a time.

    Raises:
        ValueError: images of different sizes and no `size`, or a broken one.
    """
    first, grey = None, True
    for path in paths:
        image = read_image(path, size)
        first, grey = first or (path, image), grey and image.ndim == 2
        check_size(first, (path, image))
    return first[1].shape[:2], grey
