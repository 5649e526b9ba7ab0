"""MiraBest: radio galaxies of Fanaroff and Riley's two classes, seen from anywhere, hence without an up.

F. A. M. Porter and A. M. M. Scaife, "MiraBest: a data set of morphologically classified radio galaxies for
machine learning", RASTI 2, 2023 (Zenodo 4288837, CC BY 4.0): VLA FIRST images, classified by Miraghaei and
Best (2017).
"""

import numpy as np
import torch

from eqgan.data.imageset import ImageSet, Source
from eqgan.data.root import data_root
from eqgan.data.rotated import with_rotated_test
from eqgan.data.sprites import check_content
from eqgan.files import read_arrays

MIRABEST_SHA256 = {
    "train": "01accc87bac773dbc31790d6edc6e8eed4f23e5f213d20dc973b7795e18afe5b",
    "test": "44f8747d3d6811ebf7e685d324895fe895dc2269a71bed8724dd077f09b9efd5",
}
"""Hash of the `ImageSet` of each split, the blank images left out."""

BLANK = (198, 323, 325, 474, 587, 694)
"""Rows of the training images that hold nothing, in the original too; they are left out."""

_PLACES = ("mirabest/mirabest_confident.npz", "mirabest_confident.npz")
_CLASSES = ("FRI", "FRII")
_REMEDY = "Delete it and fetch it again, or copy it from an intact source."


def read_mirabest(root: str | None = None, size: int | None = None) -> Source:
    """Read the confidently classified sources: 698 training and 88 test images of 150 x 150 pixels.

    150 is a size at which few strided layers are exact; `size` resizes, for example to 65 or 129, which
    three-pixel kernels with stride 2 and padding 1 keep odd down to 3 pixels.

    Args:
        root: the data root; see `eqgan.data.root.data_root`.
        size: pixels a side of `Source.split`.

    Raises:
        FileNotFoundError: the file is not there.
        ValueError: it is damaged, or holds something else.
    """
    paths = [data_root(root) / place for place in _PLACES]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        raise FileNotFoundError(
            f"--data mirabest: expected {' or '.join(map(str, paths))}, got no such file. Put it there, or "
            "point --data-root or the environment variable EQGAN_DATA at the folder above."
        )
    arrays = read_arrays(path)
    sets = {}
    for split, sha256 in MIRABEST_SHA256.items():
        images, labels = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
        if images is None or labels is None or images.ndim != 3 or labels.shape != images.shape[:1]:
            raise ValueError(
                f"{path}: expected images (N, height, width) in 'x_{split}' and N labels in 'y_{split}', got "
                f"{', '.join(f'{key} {array.shape}' for key, array in arrays.items())}. {_REMEDY}"
            )
        seen = images.any(axis=(1, 2))  # without the blank ones
        pixels, classes = (
            torch.from_numpy(images[seen])[:, None],
            torch.from_numpy(labels[seen].astype(np.int64)),
        )
        sets[split] = ImageSet.of("mirabest", pixels, classes, None, _CLASSES)
        check_content(sets[split], sha256, str(path))
    return with_rotated_test(Source.of("mirabest", sets, size))
