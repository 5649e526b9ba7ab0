"""A folder of images as a source."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageOps
from torch import Tensor

from eqgan.data.imageset import ImageSet, Source, label_indices, resize_pixels

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
"""Of the files that are read; others, and hidden ones, are passed over."""

_SPLITS = ("train", "validation", "test")


def read_folder(folder: Path, name: str, size: int | None = None) -> Source:
    """Read every image under a folder.

    Images in sub-folders are labelled with the name of the first sub-folder on their way. A folder that has a
    `train` and nothing but `train`, `validation` and `test` in it holds splits, each read like this.
    Transparent parts become black; 16-bit grey images are scaled to 8 bits; all images are grey if every
    one of them is, whatever the format of the files, and RGB otherwise.

    Args:
        folder: the folder.
        name: of the source.
        size: resize each image to `size` x `size`.

    Raises:
        ValueError: no image, a broken image, or images of different sizes and no `size`.
    """
    files = {split: image_files(part) for split, part in split_folders(folder).items()}
    read = {split: [read_image(path, size) for path in paths] for split, paths in files.items()}
    every_path = [path for paths in files.values() for path in paths]
    every_image = [image for images in read.values() for image in images]
    _check_sizes(every_path, every_image)
    grey = all(image.ndim == 2 for image in every_image)
    labels, classes = label_indices(
        {split: file_classes(part, files[split]) for split, part in split_folders(folder).items()}
    )
    sets = {
        split: ImageSet.of(name, stack(images, grey), labels[split], None, classes)
        for split, images in read.items()
    }
    return Source.of(name, sets, size)


def read_images(
    paths: Sequence[Path], image_shape: tuple[int, int, int]
) -> UInt8[Tensor, "n channels height width"]:
    """Read images for a network that was trained on images of a shape, as `read_folder` reads them.

    Args:
        paths: any format, size and mode that Pillow reads.
        image_shape: (1 or 3, side, side); images are resized to it. Grey becomes RGB by repetition, RGB
            becomes grey by its ITU-R 601 luma.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a broken image, or one that has no 8-bit meaning.
    """
    channels, side, _ = image_shape
    if missing := [path for path in paths if not path.is_file()]:
        kind = "a folder, expected images, such as its *.png" if missing[0].is_dir() else "no such image"
        raise FileNotFoundError(f"{missing[0]}: {kind}")
    read = [read_image(path, side) for path in paths]
    if channels == 1:
        read = [p if p.ndim == 2 else np.asarray(Image.fromarray(p).convert("L")) for p in read]
    return stack(read, grey=channels == 1)


def split_folders(folder: Path) -> dict[str, Path]:
    """Return split to folder: the sub-folders if they are named as splits, else the folder itself."""
    inside = {path.name: path for path in folder.iterdir() if not path.name.startswith(".")}
    if "train" in inside and set(inside) <= set(_SPLITS) and all(path.is_dir() for path in inside.values()):
        return {split: inside[split] for split in _SPLITS if split in inside}
    return {"train": folder}


def image_files(folder: Path) -> list[Path]:
    """Return the images under a folder in a fixed order.

    Raises:
        ValueError: there is none.
    """
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    ]
    if not files:
        raise ValueError(
            f"{folder}: no images in this folder or below, expected files ending in {', '.join(SUFFIXES)}. "
            "Check the path, or convert the images."
        )
    return files


def file_classes(folder: Path, files: list[Path]) -> np.ndarray | None:
    """Return the class of each file: its first sub-folder; None where there are no sub-folders.

    Raises:
        ValueError: some images are in sub-folders and some are not.
    """
    parts = [path.relative_to(folder).parts for path in files]
    bare = [path for path, names in zip(files, parts) if len(names) == 1]
    if len(bare) == len(files):
        return None
    if bare:
        inside = next(path for path, names in zip(files, parts) if len(names) > 1)
        raise ValueError(
            f"{folder}: expected all images in sub-folders (one per class) or none, got {bare[0]} "
            f"and {inside}. Move the loose images into a sub-folder, or elsewhere."
        )
    return np.array([names[0] for names in parts])


def read_image(path: Path, size: int | None) -> np.ndarray:
    """Read one image as uint8 (height, width) if it is grey, else (height, width, 3).

    Raises:
        ValueError: it is broken or of a kind that has no 8-bit meaning.
    """
    try:
        with Image.open(path) as opened:
            pixels = _eight_bits(ImageOps.exif_transpose(opened), path)
    except (OSError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError) as error:
        raise ValueError(
            f"{path}: expected an image, got a file that cannot be read ({error}). Delete or replace it."
        ) from error
    if pixels.ndim == 3 and (pixels == pixels[..., :1]).all():
        pixels = np.ascontiguousarray(pixels[..., 0])
    return pixels if size is None else resize_pixels(pixels, size)


def _eight_bits(image: Image.Image, path: Path) -> np.ndarray:
    """Return the pixels as uint8, (height, width) or (height, width, 3), over a black background."""
    if image.mode == "F" or image.mode.startswith("I"):
        values = np.asarray(image).astype(np.float64)
        if image.mode == "F" or values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"{path}: expected 8 or 16 bits per pixel, got values {values.min():g} to {values.max():g}. "
                "Convert it to 8 bits, or put the arrays into an .npz with floats in [0, 1]."
            )
        return np.floor(values / 257 + 0.5).astype(np.uint8)
    if image.mode in ("1", "L"):
        return np.asarray(image.convert("L"))
    if "A" in image.getbands() or "transparency" in image.info:
        layer = image.convert("RGBA")
        black = Image.new("RGBA", layer.size, (0, 0, 0, 255))
        return np.asarray(Image.alpha_composite(black, layer).convert("RGB"))
    return np.asarray(image.convert("RGB"))


def _check_sizes(paths: list[Path], images: list[np.ndarray]) -> None:
    for path, image in zip(paths, images):
        check_size((paths[0], images[0]), (path, image))


def check_size(first: tuple[Path, np.ndarray], other: tuple[Path, np.ndarray]) -> None:
    """Compare the sizes of two images.

    Raises:
        ValueError: they differ; names both files.
    """
    if first[1].shape[:2] != other[1].shape[:2]:
        sizes = [f"{path} is {image.shape[1]} x {image.shape[0]}" for path, image in (first, other)]
        raise ValueError(
            f"expected images of one size, got at least two: {sizes[0]}, {sizes[1]} (width x height). "
            "Add --size N to resize all of them to N x N."
        )


def stack(images: list[np.ndarray], grey: bool) -> Tensor:
    """Stack to uint8 (N, channels, height, width)."""
    if grey:
        return torch.from_numpy(np.stack(images))[:, None]
    rgb = [image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2) for image in images]
    return torch.from_numpy(np.ascontiguousarray(np.stack(rgb).transpose(0, 3, 1, 2)))
