"""An .npz file as a source: whatever arrays people have, as long as one of them looks like images."""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source, label_indices
from eqgan.files import read_arrays

_LABELS = ("labels", "label", "y", "targets")
_SPLITS = {"train": "train", "validation": "val", "test": "test"}  # split: what array names contain
_SHAPES = "(N, H, W), (N, H, W, 1 or 3) or (N, 1 or 3, H, W)"


def read_npz(path: Path, name: str, size: int | None = None) -> Source:
    """Read images, and labels if there are any, from an .npz file.

    The images are the first array of a shape and type that images have; the labels are the array named
    labels, label, y or targets, else the first 1-D array of integers of the same length. If an array of
    images has "train" in its name, arrays are sorted into splits by "train", "val" and "test" in their
    names first. Integers are 0 to 255; floats lie in [0, 1], [-1, 1] or [0, 255].

    Args:
        path: the file.
        name: of the source.
        size: pixels a side of `Source.split`.

    Raises:
        ValueError: a broken file, no array of images, NaN or infinite values, a range that is none of the
            above, or labels of another length.
    """
    splits = _sort(read_arrays(path))
    keys = {split: _image_key(arrays, path) for split, arrays in splits.items()}
    images = {
        split: to_images(arrays[keys[split]], f"{path}: array {keys[split]!r}")
        for split, arrays in splits.items()
    }
    labels, classes = label_indices(
        {split: _labels(arrays, keys[split], path) for split, arrays in splits.items()}
    )
    sets = {
        split: ImageSet.of(name, torch.from_numpy(pixels), labels[split], None, classes)
        for split, pixels in images.items()
    }
    return Source.of(name, sets, size)


def to_images(
    values: np.ndarray, where: str = "array", bounds: tuple[float, float] | None = None
) -> np.ndarray:
    """Turn an image-like array into contiguous uint8 (N, channels, H, W).

    Args:
        values: of one of the shapes and ranges named in `read_npz`.
        where: what to call the array in errors.
        bounds: least and largest value of the whole of which these are a part; theirs by default.

    Raises:
        ValueError: NaN or infinite values, or another range.

    >>> to_images(np.array([[[-1.0, 0.0], [0.5, 1.0]]])).tolist()
    [[[[0, 128], [191, 255]]]]
    """
    if values.ndim == 3:
        values = values[:, None]
    elif values.shape[1] not in (1, 3):
        values = values.transpose(0, 3, 1, 2)
    if not np.issubdtype(values.dtype, np.integer):
        values = values.astype(np.float64)
        if not np.isfinite(values).all():
            bad = int((~np.isfinite(values)).sum())
            raise ValueError(
                f"{where}: expected finite values, got {bad:,} NaN or infinite ones. Remove these images."
            )
    low, high = bounds or (values.min().item(), values.max().item())
    if np.issubdtype(values.dtype, np.integer):
        scaled = values if low >= 0 and high <= 255 else None
    else:
        scaled = _scale(values, low, high)
    if scaled is None:
        raise ValueError(
            f"{where}: expected values in 0..255, or floats in [0, 1] or [-1, 1], got {low:g} to {high:g}. "
            "Scale them to one of these (and undo a standardisation)."
        )
    return np.ascontiguousarray(scaled.astype(np.uint8))


def _scale(values: np.ndarray, low: float, high: float) -> np.ndarray | None:
    """Bring floats to 0..255, rounded half up; None where the range says nothing."""
    slack = 1e-6  # float32 round-off of whoever scaled them
    if low < -1 - slack or high > 255 + slack or (low < -slack and high > 1 + slack):
        return None
    if low < -slack:
        values = (values + 1) * 127.5
    elif high <= 1 + slack:
        values = values * 255
    return np.clip(np.floor(values + 0.5), 0, 255)


def is_image_like(array: np.ndarray) -> bool:
    """Return whether an array has a shape and a type that images have."""
    numeric = np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)
    if not (numeric or array.dtype == bool) or array.size == 0:
        return False
    return array.ndim == 3 or (array.ndim == 4 and (array.shape[1] in (1, 3) or array.shape[3] in (1, 3)))


def _sort(arrays: Mapping[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Sort arrays into splits by their names, if those of the images say "train"; else all are train."""
    if not any(is_image_like(array) and "train" in key.lower() for key, array in arrays.items()):
        return {"train": dict(arrays)}
    splits = {
        split: {key: array for key, array in arrays.items() if token in key.lower()}
        for split, token in _SPLITS.items()
    }
    return {split: part for split, part in splits.items() if any(map(is_image_like, part.values()))}


def _image_key(arrays: Mapping[str, np.ndarray], path: Path) -> str:
    for key, array in arrays.items():
        if is_image_like(array):
            return key
    got = ", ".join(f"{key} {array.dtype}{array.shape}" for key, array in arrays.items()) or "no arrays"
    raise ValueError(
        f"{path}: expected an array of images {_SHAPES} of numbers, got {got}. "
        "Write the images as one such array with numpy.savez."
    )


def _labels(arrays: Mapping[str, np.ndarray], image_key: str, path: Path) -> np.ndarray | None:
    """Return the labels (N,) as integers, or None.

    Raises:
        ValueError: an array that is named labels has another length or no whole numbers.
    """
    count = len(arrays[image_key])
    for key, array in arrays.items():
        named = _is_named_labels(key)
        flat = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
        whole = np.issubdtype(flat.dtype, np.integer)
        if flat.shape == (count,) and (whole or (named and _are_whole(flat))):
            if named or not any(map(_is_named_labels, arrays)):
                return flat.astype(np.int64)
        elif named:
            raise ValueError(
                f"{path}: expected {count:,} whole-number labels in {key!r}, one per image, "
                f"got {array.dtype} of shape {array.shape}. Correct or rename that array."
            )
    return None


def _is_named_labels(key: str) -> bool:
    """``labels``, also of a split: ``train_labels``, ``y_test``, ...

    >>> [_is_named_labels(key) for key in ("y", "Labels_train", "x_train", "yes")]
    [True, True, False, False]
    """
    parts = re.split(r"[^a-z]+", key.lower())
    return any(part in _LABELS for part in parts)


def _are_whole(values: np.ndarray) -> bool:
    return bool(np.issubdtype(values.dtype, np.floating) and (values == np.floor(values)).all())
